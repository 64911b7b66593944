"""Metrics in the forms that other libraries take, one module for each library.

`fmiqa.integrations.torchmetrics` needs the package torchmetrics to be imported; `fmiqa.export_onnx` imports what it
needs when it is called.
"""
