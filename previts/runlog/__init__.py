"""The run log: runs in MLflow, with a local spool while MLflow does not answer."""
