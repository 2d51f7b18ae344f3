"""Saliency maps without labels, from which PreViTS section 3.2 takes the object to track."""
