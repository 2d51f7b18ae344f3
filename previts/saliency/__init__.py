"""Salient objects without labels: PreViTS section 3.2 finds its tracking target in a saliency map."""
