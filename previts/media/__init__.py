"""Videos, images and masks as data: decoding, normalisation, geometry, random boxes, variants and drawing."""
