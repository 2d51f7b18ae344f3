"""The pipelines: the components as DAGs, compiled to the YAML that a cluster runs."""
