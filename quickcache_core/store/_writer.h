/* What a write in C works with: where everything is, and how it counts. */

#ifndef QUICKCACHE_WRITER_H
#define QUICKCACHE_WRITER_H

#include "../eviction_policy/_queue.h"
#include <math.h>

/* Behind the slots of `Counters`, which the members of the type in C hide. */
typedef struct {
    long long sets, evictions, peak_total_keys, peak_valid_keys;
} Counts;

typedef struct {
    PyTypeObject *counters, *population, *deadlines_type, *bucket_type, *chunk_type, *entry_type, *s3fifo;
    PyTypeObject *queue_type, *ghost_type, *lock_type, *bounds_type;
    PyTypeObject *writer_type, *gate_type, *door_type;
    PyObject *forever, *gone, *zero, *one, *nil, *nowhere, *monotonic;
    PyCFunction monotonic_function;
    PyObject *ttl_name, *initial_name;
    double least, most; /* of the target of s3fifo, as shares of the capacity */
    double ticks_per_second, fine_bits;
    Py_ssize_t chunk_size, sparse;
    /* Offsets of slots, by class. */
    struct { Py_ssize_t counts; } at_counters;
    struct {
        Py_ssize_t entries, deadlines, counters, loads, removals, unfinished, policy, may_swap, plain_keys, now,
            on_update;
    } at_population;
    struct { Py_ssize_t buckets, chunk, low, high, next_due, new_chunk; } at_deadlines;
    struct { Py_ssize_t chunks; } at_bucket;
    struct { Py_ssize_t bucket, entries, gone, limit, place; } at_chunk;
    struct { Py_ssize_t key, value, deadline, frequency, queue, chunk, index; } at_entry;
    struct { Py_ssize_t capacity, filling, main, main_ghost, small, small_ghost, target; } at_s3fifo;
    struct { Py_ssize_t busy, postponed; } at_lock;
    struct { Py_ssize_t max_size, cull_fraction; } at_bounds;
    /* An entry that has left, whose memory the next newcomer gets; NULL if there is none. */
    PyObject *spare;
} State;

/* How much may be in the table. */
typedef struct {
    Py_ssize_t max_size;
    int culls;
} Room;

/* A write under way: borrowed references, good as long as no Python code runs. */
typedef struct {
    State *state;
    PyObject *population, *entries, *deadlines;
    Counts *counts;
    PyObject *key, *value;
    double now;
    double deadline; /* INFINITY for FOREVER */
    Room room;
} Write;

/* What a write may answer. */
enum { FAILED = -1, REFER, DONE };

static inline PyObject *
at(PyObject *object, Py_ssize_t offset)
{
    return *slot_at(object, offset);
}

static inline int
is(PyObject *object, PyTypeObject *type)
{
    return object != NULL && Py_IS_TYPE(object, type);
}

/* The number in a slot, or -1.0 if that isn't a float. */
static inline double
float_at(PyObject *object, Py_ssize_t offset)
{
    PyObject *number = at(object, offset);
    return is(number, &PyFloat_Type) ? PyFloat_AS_DOUBLE(number) : -1.0;
}

/* The number in a slot, or -1 if that isn't a small integer. */
static inline long
small_int_at(PyObject *object, Py_ssize_t offset)
{
    PyObject *number = at(object, offset);
    if (!is(number, &PyLong_Type)) {
        return -1;
    }
    int overflow;
    return PyLong_AsLongAndOverflow(number, &overflow);
}

#endif
