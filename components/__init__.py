"""The verbs of previts as KFP components: thin doors, one file a verb, nothing heavy imported before they run."""
