"""What calibration data says about the layers of a graph: activations node by node, normal equations layer by layer."""
