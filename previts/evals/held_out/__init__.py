"""The test items of the labelled sets, which a corpus for pretraining should not show."""
