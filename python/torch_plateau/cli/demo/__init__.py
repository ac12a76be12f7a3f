"""The demo: an ensemble on scikit-learn's digits."""
