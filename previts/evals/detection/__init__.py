"""Object detection and instance segmentation: VOC 2007 and COCO 2017."""
