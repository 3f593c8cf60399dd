"""The runtime that MLServer loads; `start.py` writes its settings."""

import asyncio
import functools

from engine import Engine
from mlserver import MLModel, types


class Age(MLModel):
    async def load(self):
        self.engine = Engine()
        return True

    async def predict(self, payload):
        data = payload.inputs[0].data
        images = [image.encode("latin-1") if isinstance(image, str) else image for image in getattr(data, "root", data)]
        ages = await asyncio.get_running_loop().run_in_executor(None, functools.partial(self.engine.ages, images))
        output = types.ResponseOutput(name="age", shape=[len(ages), 1], datatype="FP32", data=ages)
        return types.InferenceResponse(model_name=self.name, outputs=[output])
