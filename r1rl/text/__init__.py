"""Text around a model: prompts and their templates, tags of thoughts and answers, languages, reflection."""
