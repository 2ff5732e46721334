"""The objective as pure functions of tensors: advantages, surrogate losses, aggregation, KL estimators."""
