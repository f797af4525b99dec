"""The body of `emsam prepare`: looks at anyone's volumes and writes the config, each choice with its reason."""
