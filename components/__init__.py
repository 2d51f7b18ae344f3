"""The KFP components: one file for each verb, and `flow.py` for the steps between the verbs.

KFP copies the body of a component into the compiled YAML. The imports of a body run in the step, not when compiling.
"""
