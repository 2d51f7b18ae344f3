"""The object followed: SORT, the choice of the target, tubes."""
