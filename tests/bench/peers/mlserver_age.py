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
        pictures = [picture.encode("latin-1") if isinstance(picture, str) else picture for picture in getattr(data, "root", data)]
        ages = await asyncio.get_running_loop().run_in_executor(None, functools.partial(self.engine.ages, pictures))
        output = types.ResponseOutput(name="age", shape=[len(ages), 1], datatype="FP32", data=ages)
        return types.InferenceResponse(model_name=self.name, outputs=[output])
