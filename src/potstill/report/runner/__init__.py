"""A page that runs a model: an ONNX file as a program for a small interpreter in JavaScript (`runner.js`)."""
