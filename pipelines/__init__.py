"""The DAGs: verbs named in an order, compiled to the YAML that a cluster runs."""
