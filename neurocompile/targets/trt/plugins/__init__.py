"""Plugins of TensorRT from the Triton kernels that train: compiled ahead of time into images, one per op and problem.

`runtime.plugins.image.PluginImage` is the contract. It is made here (`compiled.py`) from the plans that the ops state
(`ops/OP/tensorrt_plugin.py`) and read in two places: by `runtime.backends.tensorrt_plugins`, which registers it with
TensorRT's quick-deployable plugins, and by the generator of C++ plugins. What C++ has to do with an image:

- one `IPluginV3` creator per image, named `image.name`, namespace `image.namespace`, version `image.version`, no
  fields: nothing is configured, all numbers are in the kernels;
- `getOutputShapes`: `outputs[j].shape` over the inputs' lengths, in TensorRT's expressions (`sizes.fold`);
- `supportsFormatCombination`: linear format and exactly the `dtype`s of the image; `configurePlugin`/`onShapeChange`:
  lengths fixed in `inputs[i].shape` are as fixed;
- `getWorkspaceSize`: the sum over `scratch` of elements times bytes, each begun at a multiple of 256;
- `getAliasedInput(j)`: the input of `aliased` for output j, -1 for all others;
- `enqueue`: the launches in order on the stream, as the docstring of `runtime.plugins.image` says, by the driver's
  `cuLaunchKernel`; a launch of which a grid length is 0 is left out. `sizes.to_cpp` writes the integers;
- code: `launch.cubin` fits GPUs of the image's `capability` only, `launch.ptx` too (its target may be one of the
  `a` variants, which no other chip runs). Load once per process and device with `cuModuleLoadData`; refuse other GPUs.

Kernels have exactly the parameters of `launch.arguments`, in that order; the two that Triton hides at the end are cut.
"""
