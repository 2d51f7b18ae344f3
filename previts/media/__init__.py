"""Videos and images as data: decoding, normalisation, geometry, masks, drawing."""
