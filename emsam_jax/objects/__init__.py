"""Labels to what is taken away: meshes, skeletons and measurements of all objects, block by block.

    pieces        each object's mask in each block              -> pieces/, counts/
    catalogue     all objects, dealt out into groups            -> objects.npy, groups/
    shapes        an object's mesh, skeleton and measurements   -> meshes/, skeletons/, measured/
    measurements  the table of all of them                      -> objects.csv, segments/

`make_objects` runs them in this order. An object's shape is made of the whole object, wherever blocks cut it: what is
written does not depend on them.
"""

from emsam_jax.objects.make_objects import make_objects
from emsam_jax.objects.objects_job import Tracing, plan_objects

__all__ = ["Tracing", "make_objects", "plan_objects"]
