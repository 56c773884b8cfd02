"""Reading and writing of models: folders, packed files, exported files."""
