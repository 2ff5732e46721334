"""The memory that a recipe needs on each GPU, estimated from the shape of its model."""
