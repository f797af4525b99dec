from emsam_jax.commands import call

if __name__ == "__main__":
    call("eval")
