/* What `Deadlines` does for a plain write, in C, as `deadlines.py` does it. */

#ifndef QUICKCACHE_WRITER_WHEEL_H
#define QUICKCACHE_WRITER_WHEEL_H

#include "_writer.h"

/* What can be told of an entry that is to leave the wheel. */
enum { UNKNOWN, NOT_THERE, LEAVES_A_GAP, LEAVES_TOO_MANY };

static inline PyObject *
chunk_list(const State *state, PyObject *chunk)
{
    PyObject *list = is(chunk, state->chunk_type) ? at(chunk, state->at_chunk.entries) : NULL;
    return is(list, &PyList_Type) ? list : NULL;
}

/* The chunks of the bucket that a chunk is in, if that is where it says. */
static inline PyObject *
chunks_around(const State *state, PyObject *chunk)
{
    PyObject *bucket = at(chunk, state->at_chunk.bucket);
    PyObject *chunks = is(bucket, state->bucket_type) ? at(bucket, state->at_bucket.chunks) : NULL;
    if (!is(chunks, &PyList_Type)) {
        return NULL;
    }
    long place = small_int_at(chunk, state->at_chunk.place);
    return place >= 0 && place < PyList_GET_SIZE(chunks) && PyList_GET_ITEM(chunks, place) == chunk ? chunks : NULL;
}

static inline void
set_recent(const State *state, PyObject *deadlines, PyObject *chunk, PyObject *low, PyObject *high)
{
    PyObject *former[] = {
        exchange_slot(deadlines, state->at_deadlines.chunk, Py_NewRef(chunk)),
        exchange_slot(deadlines, state->at_deadlines.low, low),
        exchange_slot(deadlines, state->at_deadlines.high, high),
    };
    for (int number = 0; number < 3; number++) {
        Py_XDECREF(former[number]);
    }
}

/* As `Deadlines._chunk_for` where there is a chunk with room: 0 if there is none, -1 with an exception. */
static inline int
find_chunk(const Write *write)
{
    const State *state = write->state;
    PyObject *buckets = at(write->deadlines, state->at_deadlines.buckets);
    double ticks = write->deadline * state->ticks_per_second;
    if (!is(buckets, &PyDict_Type) || !(ticks < 1e15) || write->now < 0.0) {
        return 0;
    }
    int64_t tick = (int64_t)ticks, low, high;
    int64_t left = tick - (int64_t)(write->now * state->ticks_per_second);
    int coarse = -(int)state->fine_bits;
    for (int64_t rest = left; rest > 0; rest >>= 1) {
        coarse++;
    }
    if (coarse > 0) {
        low = tick = tick >> coarse << coarse;
        high = tick + ((int64_t)1 << coarse);
    }
    else {
        low = tick;
        high = ++tick;
    }
    PyObject *number = PyLong_FromLongLong(tick);
    PyObject *bucket = number == NULL ? NULL : PyDict_GetItemWithError(buckets, number);
    Py_XDECREF(number);
    PyObject *chunks = is(bucket, state->bucket_type) ? at(bucket, state->at_bucket.chunks) : NULL;
    if (!is(chunks, &PyList_Type) || PyList_GET_SIZE(chunks) == 0) {
        return number == NULL || PyErr_Occurred() ? FAILED : 0;
    }
    PyObject *last = PyList_GET_ITEM(chunks, PyList_GET_SIZE(chunks) - 1), *list = chunk_list(state, last);
    if (list == NULL || PyList_GET_SIZE(list) >= state->chunk_size) {
        return 0;
    }
    PyObject *from = PyFloat_FromDouble((double)low / state->ticks_per_second);
    PyObject *to = PyFloat_FromDouble((double)high / state->ticks_per_second);
    if (from == NULL || to == NULL) {
        Py_XDECREF(from);
        Py_XDECREF(to);
        return FAILED;
    }
    set_recent(state, write->deadlines, last, from, to);
    return 1;
}

static inline PyObject *
recent_with_room(const Write *write, PyObject **chunk)
{
    const State *state = write->state;
    *chunk = at(write->deadlines, state->at_deadlines.chunk);
    PyObject *list = chunk_list(state, *chunk);
    int fits = list != NULL && PyList_GET_SIZE(list) < state->chunk_size &&
               float_at(write->deadlines, state->at_deadlines.low) <= write->deadline &&
               write->deadline < float_at(write->deadlines, state->at_deadlines.high);
    return fits ? list : NULL;
}

/* The list of the chunk that takes an entry with this deadline; NULL, maybe with an exception, if there is more to
   do about it. */
static inline PyObject *
list_for(const Write *write, PyObject **chunk)
{
    PyObject *list = recent_with_room(write, chunk);
    return list != NULL || find_chunk(write) <= 0 ? list : recent_with_room(write, chunk);
}

/* How an entry leaves the wheel. */
static inline int
departure(const State *state, PyObject *entry)
{
    if (at(entry, state->at_entry.deadline) == state->forever) {
        return NOT_THERE;
    }
    PyObject *chunk = at(entry, state->at_entry.chunk), *list = chunk_list(state, chunk);
    long index = small_int_at(entry, state->at_entry.index);
    if (list == NULL || index < 0 || index >= PyList_GET_SIZE(list) || PyList_GET_ITEM(list, index) != entry) {
        return UNKNOWN;
    }
    long gone = small_int_at(chunk, state->at_chunk.gone), limit = small_int_at(chunk, state->at_chunk.limit);
    if (gone < 0 || limit < 0) {
        return UNKNOWN;
    }
    if (gone + 1 < limit) {
        return LEAVES_A_GAP;
    }
    return chunks_around(state, chunk) != NULL ? LEAVES_TOO_MANY : UNKNOWN;
}

/* As `Chunk(bucket)`, at the end of its bucket. A borrowed reference. */
static inline PyObject *
new_chunk(const State *state, PyObject *bucket, PyObject *chunks)
{
    /* The garbage collector could run a finaliser, and the books are torn here. */
    int collects = PyGC_Disable();
    PyObject *chunk = state->chunk_type->tp_alloc(state->chunk_type, 0), *list = PyList_New(0);
    if (collects) {
        PyGC_Enable();
    }
    PyObject *place = PyLong_FromSsize_t(PyList_GET_SIZE(chunks)), *limit = PyLong_FromSsize_t(state->sparse);
    int made = chunk != NULL && list != NULL && place != NULL && limit != NULL && PyList_Append(chunks, chunk) == 0;
    Py_XDECREF(chunk); /* `chunks` has it */
    if (!made) {
        Py_XDECREF(list);
        Py_XDECREF(place);
        Py_XDECREF(limit);
        return NULL;
    }
    (void)exchange_slot(chunk, state->at_chunk.bucket, Py_NewRef(bucket));
    (void)exchange_slot(chunk, state->at_chunk.entries, list);
    (void)exchange_slot(chunk, state->at_chunk.gone, Py_NewRef(state->zero));
    (void)exchange_slot(chunk, state->at_chunk.place, place);
    (void)exchange_slot(chunk, state->at_chunk.limit, limit);
    return chunk;
}

/* Move what is left of a chunk to the end of its bucket. */
static inline int
move_survivors(const State *state, PyObject *list, PyObject *bucket, PyObject *chunks)
{
    for (Py_ssize_t number = 0; number < PyList_GET_SIZE(list); number++) {
        PyObject *entry = PyList_GET_ITEM(list, number);
        if (entry == Py_None || !PyObject_TypeCheck(entry, state->entry_type)) {
            continue;
        }
        Py_ssize_t count = PyList_GET_SIZE(chunks);
        PyObject *end = count > 0 ? PyList_GET_ITEM(chunks, count - 1) : NULL;
        PyObject *to = end == NULL ? NULL : chunk_list(state, end);
        if (to == NULL || PyList_GET_SIZE(to) >= state->chunk_size) {
            end = new_chunk(state, bucket, chunks);
            if (end == NULL) {
                return FAILED;
            }
            to = at(end, state->at_chunk.entries);
        }
        PyObject *index = PyLong_FromSsize_t(PyList_GET_SIZE(to));
        if (index == NULL || PyList_Append(to, entry) < 0) {
            Py_XDECREF(index);
            return FAILED;
        }
        Py_XDECREF(exchange_slot(entry, state->at_entry.chunk, Py_NewRef(end)));
        Py_XDECREF(exchange_slot(entry, state->at_entry.index, index));
    }
    return DONE;
}

/* The last chunk of a bucket takes the place of another one: whether it is sparse itself, or -1. */
static inline int
take_place(const State *state, PyObject *last, PyObject *chunk, PyObject *chunks)
{
    PyObject *place = at(chunk, state->at_chunk.place), *list = chunk_list(state, last);
    if (list == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Chunk is expected");
        return FAILED;
    }
    Py_ssize_t share = PyList_GET_SIZE(list) * 2 / 3;
    PyObject *limit = PyLong_FromSsize_t(share > 1 ? share : 1);
    if (limit == NULL || PyList_SetItem(chunks, PyLong_AsSsize_t(place), Py_NewRef(last)) < 0) {
        Py_XDECREF(limit);
        return FAILED;
    }
    Py_XDECREF(exchange_slot(last, state->at_chunk.place, Py_NewRef(place)));
    Py_XDECREF(exchange_slot(last, state->at_chunk.limit, limit));
    return small_int_at(last, state->at_chunk.gone) >= small_int_at(last, state->at_chunk.limit);
}

/* As `Deadlines._thin_out`, after `departure`. */
static inline int
thin_out(const Write *write, PyObject *chunk)
{
    const State *state = write->state;
    Py_INCREF(chunk);
    for (int more = 1; more > 0;) {
        if (at(write->deadlines, state->at_deadlines.chunk) == chunk) {
            set_recent(state, write->deadlines, state->nowhere, Py_NewRef(state->nil), Py_NewRef(state->nil));
        }
        PyObject *bucket = at(chunk, state->at_chunk.bucket), *chunks = at(bucket, state->at_bucket.chunks);
        Py_ssize_t end = PyList_GET_SIZE(chunks) - 1;
        PyObject *last = Py_NewRef(PyList_GET_ITEM(chunks, end));
        more = PyList_SetSlice(chunks, end, end + 1, NULL);
        if (more == 0 && last != chunk) {
            more = take_place(state, last, chunk, chunks);
        }
        if (more < 0 || move_survivors(state, at(chunk, state->at_chunk.entries), bucket, chunks) < 0) {
            Py_DECREF(last);
            Py_DECREF(chunk);
            return FAILED;
        }
        Py_DECREF(chunk);
        chunk = last;
    }
    Py_DECREF(chunk);
    return DONE;
}

/* As `Deadlines.discard`, after `departure`. */
static inline int
discard(const Write *write, PyObject *entry, int how)
{
    if (how == NOT_THERE) {
        return DONE;
    }
    const State *state = write->state;
    PyObject *chunk = at(entry, state->at_entry.chunk), *list = at(chunk, state->at_chunk.entries);
    PyObject *gone = PyLong_FromLong(small_int_at(chunk, state->at_chunk.gone) + 1);
    if (gone == NULL) {
        return FAILED;
    }
    PyList_SET_ITEM(list, small_int_at(entry, state->at_entry.index), Py_NewRef(Py_None));
    Py_DECREF(entry); /* of the list; the table and a queue have it as well */
    Py_DECREF(exchange_slot(chunk, state->at_chunk.gone, gone));
    return how == LEAVES_TOO_MANY ? thin_out(write, chunk) : DONE;
}

#endif
