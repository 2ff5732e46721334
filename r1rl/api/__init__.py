"""The library: the functions behind `import r1rl`, made of the parts of the commands (docs/library.md)."""
