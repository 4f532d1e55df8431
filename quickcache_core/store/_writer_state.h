/* Where the writer finds everything: the classes, the offsets of their slots, and a few objects. */

#ifndef QUICKCACHE_WRITER_STATE_H
#define QUICKCACHE_WRITER_STATE_H

#include "_writer.h"

typedef struct {
    const char *name;
    size_t offset; /* of a field of the state, which is the offset of that slot */
} Slot;

#define SLOT(name, field) {name, offsetof(State, field)}

static const Slot population_slots[] = {
    SLOT("entries", at_population.entries),       SLOT("deadlines", at_population.deadlines),
    SLOT("counters", at_population.counters),     SLOT("loads", at_population.loads),
    SLOT("removals", at_population.removals),     SLOT("unfinished", at_population.unfinished),
    SLOT("policy", at_population.policy),         SLOT("_may_swap", at_population.may_swap),
    SLOT("plain_keys", at_population.plain_keys), SLOT("_now", at_population.now),
    SLOT("_on_update", at_population.on_update),
    {NULL, 0},
};
static const Slot deadlines_slots[] = {
    SLOT("_buckets", at_deadlines.buckets),
    SLOT("_chunk", at_deadlines.chunk),
    SLOT("_low", at_deadlines.low),
    SLOT("_high", at_deadlines.high),
    SLOT("next_due", at_deadlines.next_due),
    SLOT("new_chunk", at_deadlines.new_chunk),
    {NULL, 0},
};
static const Slot bucket_slots[] = {SLOT("chunks", at_bucket.chunks), {NULL, 0}};
static const Slot chunk_slots[] = {
    SLOT("bucket", at_chunk.bucket),
    SLOT("entries", at_chunk.entries),
    SLOT("gone", at_chunk.gone),
    SLOT("limit", at_chunk.limit),
    SLOT("place", at_chunk.place),
    {NULL, 0},
};
static const Slot entry_slots[] = {
    SLOT("key", at_entry.key),
    SLOT("value", at_entry.value),
    SLOT("deadline", at_entry.deadline),
    SLOT("frequency", at_entry.frequency),
    SLOT("queue", at_entry.queue),
    SLOT("chunk", at_entry.chunk),
    SLOT("index", at_entry.index),
    {NULL, 0},
};
static const Slot s3fifo_slots[] = {
    SLOT("_capacity", at_s3fifo.capacity), SLOT("_filling", at_s3fifo.filling),
    SLOT("_main", at_s3fifo.main),         SLOT("_main_ghost", at_s3fifo.main_ghost),
    SLOT("_small", at_s3fifo.small),       SLOT("_small_ghost", at_s3fifo.small_ghost),
    SLOT("_target", at_s3fifo.target),     {NULL, 0},
};
static const Slot lock_slots[] = {
    SLOT("busy", at_lock.busy),
    SLOT("postponed", at_lock.postponed),
    {NULL, 0},
};
static const Slot bounds_slots[] = {
    SLOT("max_size", at_bounds.max_size),
    SLOT("cull_fraction", at_bounds.cull_fraction),
    {NULL, 0},
};
static const Slot no_slots[] = {{NULL, 0}};

#define S3FIFO_MODULE "quickcache_core.eviction_policy.s3fifo"
#define WHEEL_MODULE "quickcache_core.store.deadlines"
#define QUEUE_MODULE "quickcache_core.eviction_policy._queue"

static const struct {
    const char *module, *name;
    size_t type; /* offset of the field of the state that has it */
    const Slot *slots;
} classes[] = {
    {"quickcache_core.store.population", "Population", offsetof(State, population), population_slots},
    {WHEEL_MODULE, "Deadlines", offsetof(State, deadlines_type), deadlines_slots},
    {WHEEL_MODULE, "Bucket", offsetof(State, bucket_type), bucket_slots},
    {WHEEL_MODULE, "Chunk", offsetof(State, chunk_type), chunk_slots},
    {"quickcache_core.entry", "Entry", offsetof(State, entry_type), entry_slots},
    {S3FIFO_MODULE, "S3FIFOEvictionPolicy", offsetof(State, s3fifo), s3fifo_slots},
    {"quickcache_core.store.write_lock", "WriteLock", offsetof(State, lock_type), lock_slots},
    {"quickcache_core.store.base", "Bounds", offsetof(State, bounds_type), bounds_slots},
    {QUEUE_MODULE, "EntryQueue", offsetof(State, queue_type), no_slots},
    {QUEUE_MODULE, "Ghost", offsetof(State, ghost_type), no_slots},
};
#define CLASSES (int)(sizeof(classes) / sizeof(classes[0]))

static int
find_classes(State *state)
{
    for (int number = 0; number < CLASSES; number++) {
        PyTypeObject *type = type_of(classes[number].module, classes[number].name);
        if (type == NULL) {
            return -1;
        }
        *(PyTypeObject **)((char *)state + classes[number].type) = type;
        for (const Slot *slot = classes[number].slots; slot->name != NULL; slot++) {
            Py_ssize_t offset = offset_of((PyObject *)type, slot->name);
            if (offset < 0) {
                return -1;
            }
            *(Py_ssize_t *)((char *)state + slot->offset) = offset;
        }
    }
    return 0;
}

/* A number of a module in Python; -1.0 with an exception. */
static double
number_of(const char *module, const char *name)
{
    PyObject *number = attribute_of(module, name);
    double value = number == NULL ? -1.0 : PyFloat_AsDouble(number);
    Py_XDECREF(number);
    return value;
}

/* The structures of queues are shared with another module, whose file may be older. */
static int
check_build(void)
{
    double build = number_of(QUEUE_MODULE, "BUILD");
    return PyErr_Occurred() ? -1 : build == QUICKCACHE_BUILD ? 0 : not_ours(QUEUE_MODULE);
}

static int
find_objects(State *state)
{
    if ((state->forever = attribute_of("quickcache_core.entry", "FOREVER")) == NULL ||
        (state->gone = attribute_of("quickcache_core.entry", "GONE")) == NULL ||
        (state->zero = PyLong_FromLong(0)) == NULL || (state->one = PyLong_FromLong(1)) == NULL ||
        (state->nil = PyFloat_FromDouble(0.0)) == NULL ||
        (state->nowhere = attribute_of(WHEEL_MODULE, "_NOWHERE")) == NULL ||
        (state->ttl_name = PyUnicode_InternFromString("ttl_sec")) == NULL ||
        (state->initial_name = PyUnicode_InternFromString("initial")) == NULL ||
        (state->monotonic = attribute_of("time", "monotonic")) == NULL) {
        return -1;
    }
    state->least = number_of(S3FIFO_MODULE, "_LEAST");
    state->most = number_of(S3FIFO_MODULE, "_MOST");
    state->ticks_per_second = number_of(WHEEL_MODULE, "_TICKS_PER_SECOND");
    state->fine_bits = number_of(WHEEL_MODULE, "_FINE_BITS");
    state->chunk_size = (Py_ssize_t)number_of(WHEEL_MODULE, "_CHUNK_SIZE");
    state->sparse = (Py_ssize_t)number_of(WHEEL_MODULE, "_SPARSE");
    if (PyErr_Occurred()) {
        return -1;
    }
    if (PyCFunction_CheckExact(state->monotonic)) {
        state->monotonic_function = PyCFunction_GET_FUNCTION(state->monotonic);
    }
    else {
        /* Somebody exchanged it: no clock is the one that we know, and all are called. */
        Py_CLEAR(state->monotonic);
    }
    return 0;
}

#endif
