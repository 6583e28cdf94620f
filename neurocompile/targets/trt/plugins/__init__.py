"""Plugins of TensorRT from the Triton kernels that train: compiled ahead of time into images, one per op and problem.

`runtime.plugins.image.PluginImage` is the contract. It is made here (`compiled.py`) from the plans that the ops state
(`ops/OP/tensorrt_plugin.py`) and read in two places: by `runtime.backends.tensorrt_plugins`, which registers it with
TensorRT's quick-deployable plugins, and by `cpp_source.py`, which writes it as constants for the class in `cpp/`. What
that class does with an image:

- one `IPluginV3` creator per image, named `image.name`, namespace `image.namespace`, version `image.version`, no
  fields: nothing is configured, all numbers are in the kernels; engines keep the name;
- `getOutputShapes`: `outputs[j].shape` over the inputs' lengths, in TensorRT's expressions;
- `supportsFormatCombination`: linear format and exactly the `dtype`s of the image; `configurePlugin`/`onShapeChange`:
  lengths fixed in `inputs[i].shape` are as fixed;
- `getWorkspaceSize`: the sum over `scratch` of elements times bytes, each begun at a multiple of 256, at most, for all
  lengths between the least and the most that TensorRT names;
- `getAliasedInput(j)`: the input of `aliased` for output j, -1 for all others;
- `enqueue`: the launches in order on the stream, as the docstring of `runtime.plugins.image` says, by the driver's
  `cuLaunchKernel`; a launch of which a grid length is 0 is left out;
- code: `launch.ptx`, loaded once per CUDA context; GPUs other than the image's `capability` are refused. Machine code
  of a newer toolkit than the driver's would be refused there, the version of the PTX is chosen to fit.

Kernels have exactly the parameters of `launch.arguments`, in that order; the two that Triton hides at the end are cut.
"""
