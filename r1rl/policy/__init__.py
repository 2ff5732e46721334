"""The policy: its log-probabilities, compilation, adapters, and how its sequences are packed into
micro-batches.
"""
