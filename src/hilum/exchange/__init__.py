"""MODELS OF OTHERS: nnU-Net and MONAI models in; ONNX and OpenVINO out, with the proof that nothing was lost."""
