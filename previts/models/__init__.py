"""Models: encoders, projection heads, and the contrastive model with attention supervision."""
