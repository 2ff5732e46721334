"""How good a model is, with the uncertainty of the figure. Two evaluations share the estimators:

    r1rl evaluate      command: reads the recipe and reports
                         targets, adapters, loading     which models
                         benchmarks                     which problems
                         samplers, endpoint             who writes the completions
                         answering, sample_log          what is sampled, kept and gone on with
                         grades, scores, limits         from completions to figures
                         manifest, results              what is kept beside a score, and comparisons
                         tables, report*, charts, progress   what people look at

    during training    evaluate, record: held-out problems, the run's own rewards and rollout engine

    both               estimators (pass@k, cons@k), intervals
"""
