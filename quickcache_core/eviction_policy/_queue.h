/* The queue and the ghost in C, for the module that has them and for the one that writes entries. */

#ifndef QUICKCACHE_QUEUE_H
#define QUICKCACHE_QUEUE_H

#include "../_slots.h"
#include <stdint.h>

#define BLOCK_ITEMS 63 /* a block takes 512 bytes, the most that Python's allocator has pools for */
#define SLACK 64
#define STEPS 4

typedef struct Block {
    struct Block *next;
    PyObject *items[BLOCK_ITEMS];
} Block;

/* Entries in order. Blocks rather than an array, which would be copied as a whole when it grows. */
typedef struct {
    Block *first, *last;
    int head, tail; /* the next to leave `first`, the next free place in `last` */
    Py_ssize_t size;
} Line;

typedef struct {
    PyObject_HEAD
    Line front, back; /* see `queue.py` */
    Block *spare;
    Py_ssize_t live, dead;
    Py_ssize_t deadline, queue; /* offsets in an entry */
} Queue;

/* A set of hashes: a table of their complements, which are never 0, since no hash is -1. */
typedef struct {
    PyObject_HEAD
    Py_ssize_t used;
    int bits;
    Py_hash_t *slots;
} Digests;

typedef struct {
    PyObject_HEAD
    Py_ssize_t limit;
    Digests *new, *old;
    PyTypeObject *digests_type; /* lives as long as the type of the ghost does */
} Ghost;

/* Lines */

/* See to a free place at the end of the line; 0, or -1 with an exception. */
static inline int
line_reserve(Queue *queue, Line *line)
{
    if (line->last != NULL && line->tail < BLOCK_ITEMS) {
        return 0;
    }
    Block *block = queue->spare;
    if (block != NULL) {
        queue->spare = NULL;
    }
    else if ((block = PyMem_Malloc(sizeof(Block))) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    block->next = NULL;
    if (line->last == NULL) {
        line->first = block;
        line->head = 0;
    }
    else {
        line->last->next = block;
    }
    line->last = block;
    line->tail = 0;
    return 0;
}

/* Takes the reference. There is a place for it. */
static inline void
line_push(Line *line, PyObject *item)
{
    line->last->items[line->tail++] = item;
    line->size++;
}

/* Gives the reference. The line isn't empty. */
static inline PyObject *
line_pop(Queue *queue, Line *line)
{
    Block *block = line->first;
    PyObject *item = block->items[line->head++];
    line->size--;
    if (block != line->last && (line->head == BLOCK_ITEMS || line->size == 0)) {
        line->first = block->next;
        line->head = 0;
        if (queue->spare == NULL) {
            queue->spare = block;
        }
        else {
            PyMem_Free(block);
        }
    }
    if (line->size == 0) {
        line->head = line->tail = 0;
    }
    return item;
}

/* Queues */

/* Whether the entry has left the cache; -1 with an exception. */
static inline int
queue_is_gone(const Queue *queue, PyObject *entry)
{
    PyObject *deadline = *slot_at(entry, queue->deadline);
    if (deadline == NULL) {
        PyErr_SetString(PyExc_AttributeError, "deadline");
        return -1;
    }
    if (PyFloat_CheckExact(deadline)) {
        return !(PyFloat_AS_DOUBLE(deadline) >= 0.0);
    }
    double number = PyFloat_AsDouble(deadline);
    return number == -1.0 && PyErr_Occurred() ? -1 : !(number >= 0.0);
}

/* See to room for one more; 0, or -1 with an exception. */
static inline int
queue_reserve(Queue *queue)
{
    return line_reserve(queue, &queue->back);
}

/* There is room for it. */
static inline void
queue_push(Queue *queue, PyObject *entry)
{
    PyObject *old = exchange_slot(entry, queue->queue, Py_NewRef((PyObject *)queue));
    queue->live++;
    line_push(&queue->back, Py_NewRef(entry));
    Py_XDECREF(old);
}

/* The oldest live entry, which stays, and the line that it is in; NULL without an exception if there is none. What
   is dead before it is dropped; or, since a finaliser may hang on to it, added to the `garbage` of who is in the
   middle of a change, linked by the slots that had the queue. A borrowed reference. */
static inline PyObject *
queue_oldest(Queue *queue, Line **line, PyObject **garbage)
{
    for (;;) {
        *line = queue->front.size ? &queue->front : &queue->back;
        if ((*line)->size == 0) {
            return NULL;
        }
        PyObject *entry = (*line)->first->items[(*line)->head];
        int gone = queue_is_gone(queue, entry);
        if (gone <= 0) {
            return gone < 0 ? NULL : entry;
        }
        entry = line_pop(queue, *line);
        queue->dead--;
        if (garbage == NULL) {
            Py_DECREF(entry);
        }
        else {
            Py_XDECREF(exchange_slot(entry, queue->queue, *garbage)); /* not the last: the policy has the queue */
            *garbage = entry;
        }
    }
}

/* Drop what `queue_oldest` found dead; `link` is the offset of the slot. */
static inline void
drop_garbage(PyObject *garbage, Py_ssize_t link)
{
    while (garbage != NULL) {
        PyObject *entry = garbage;
        garbage = exchange_slot(entry, link, NULL);
        Py_DECREF(entry);
    }
}

/* Take what `queue_oldest` found. Gives the reference. */
static inline PyObject *
queue_take(Queue *queue, Line *line)
{
    queue->live--;
    return line_pop(queue, line);
}

/* Sets of hashes */

static inline size_t
digests_start(const Digests *set, Py_hash_t digest)
{
    /* Hashes of keys with a `__hash__` of their own may differ in a few bits only. */
    return (size_t)(((uint64_t)digest * UINT64_C(0x9E3779B97F4A7C15)) >> (64 - set->bits));
}

static inline int
digests_have(const Digests *set, Py_hash_t digest)
{
    if (set->used == 0) {
        return 0;
    }
    size_t mask = ((size_t)1 << set->bits) - 1;
    for (size_t place = digests_start(set, digest); set->slots[place] != 0; place = (place + 1) & mask) {
        if (set->slots[place] == ~digest) {
            return 1;
        }
    }
    return 0;
}

static inline void
digests_put(Digests *set, Py_hash_t digest)
{
    size_t mask = ((size_t)1 << set->bits) - 1;
    size_t place = digests_start(set, digest);
    while (set->slots[place] != 0) {
        if (set->slots[place] == ~digest) {
            return;
        }
        place = (place + 1) & mask;
    }
    set->slots[place] = ~digest;
    set->used++;
}

/* 0, or -1 with an exception. */
static inline int
digests_add(Digests *set, Py_hash_t digest)
{
    if (set->slots == NULL || ((size_t)set->used + 1) * 2 > (size_t)1 << set->bits) {
        Digests larger = {.bits = set->slots == NULL ? 4 : set->bits + 1};
        larger.slots = PyMem_Calloc((size_t)1 << larger.bits, sizeof(Py_hash_t));
        if (larger.slots == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (size_t place = 0; set->slots != NULL && place < (size_t)1 << set->bits; place++) {
            if (set->slots[place] != 0) {
                digests_put(&larger, ~set->slots[place]);
            }
        }
        PyMem_Free(set->slots);
        set->slots = larger.slots;
        set->bits = larger.bits;
    }
    digests_put(set, digest);
    return 0;
}

static inline void
digests_discard(Digests *set, Py_hash_t digest)
{
    if (set->used == 0) {
        return;
    }
    size_t mask = ((size_t)1 << set->bits) - 1;
    size_t place = digests_start(set, digest);
    while (set->slots[place] != ~digest) {
        if (set->slots[place] == 0) {
            return;
        }
        place = (place + 1) & mask;
    }
    set->used--;
    /* What follows and would no longer be found moves up. */
    for (size_t next = (place + 1) & mask; set->slots[next] != 0; next = (next + 1) & mask) {
        size_t start = digests_start(set, ~set->slots[next]);
        if (((next - start) & mask) >= ((next - place) & mask)) {
            set->slots[place] = set->slots[next];
            place = next;
        }
    }
    set->slots[place] = 0;
}

/* Ghosts */

static inline Py_ssize_t
ghost_size(const Ghost *ghost)
{
    return ghost->new->used + ghost->old->used;
}

static inline void
ghost_discard(Ghost *ghost, Py_hash_t digest)
{
    digests_discard(ghost->new, digest);
    digests_discard(ghost->old, digest);
}

/* 0, or -1 with an exception. */
static inline int
ghost_add(Ghost *ghost, Py_hash_t digest)
{
    if (digests_add(ghost->new, digest) < 0) {
        return -1;
    }
    if (ghost->new->used >= ghost->limit) {
        Digests *fresh = (Digests *)ghost->digests_type->tp_alloc(ghost->digests_type, 0);
        if (fresh == NULL) {
            return -1;
        }
        Digests *dropped = ghost->old;
        ghost->old = ghost->new;
        ghost->new = fresh;
        Py_DECREF(dropped);
    }
    return 0;
}

#endif
