"""Triton, by PyTriton: triton_age.py GRPC_PORT HTTP_PORT."""

import sys

import numpy
from engine import Engine
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from start import MAX_BATCH, MAX_DELAY_MS

engine = Engine()


@batch
def infer(image):
    return {"age": numpy.array(engine.ages([row[0] for row in image]), numpy.float32)[:, numpy.newaxis]}


config = TritonConfig(grpc_address="127.0.0.1", http_address="127.0.0.1", grpc_port=int(sys.argv[1]), http_port=int(sys.argv[2]), allow_metrics=False)
with Triton(config=config) as triton:
    triton.bind(model_name="age", infer_func=infer, inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
                outputs=[Tensor(name="age", dtype=numpy.float32, shape=(1,))], strict=False,
                config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=1000 * MAX_DELAY_MS)))
    triton.serve()
