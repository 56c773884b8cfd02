"""The public functions, one file a group of verbs; `import potstill` lists them and loads each on first use."""
