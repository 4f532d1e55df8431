/* Inserting and evicting by `S3FIFOEvictionPolicy`, in C, as `s3fifo.py` does it. */

#ifndef QUICKCACHE_WRITER_S3FIFO_H
#define QUICKCACHE_WRITER_S3FIFO_H

#include "_writer.h"

typedef struct {
    PyObject *policy;
    Queue *small, *main;
    Ghost *small_ghost, *main_ghost;
    double target;
    PyObject *garbage; /* dead entries that were found, to be dropped in the end */
} S3FIFO;

/* Whether the policy is one that is known here. */
static inline int
s3fifo_open(const State *state, PyObject *policy, S3FIFO *books)
{
    if (!is(policy, state->s3fifo)) {
        return 0;
    }
    PyObject *small = at(policy, state->at_s3fifo.small), *main = at(policy, state->at_s3fifo.main);
    PyObject *small_ghost = at(policy, state->at_s3fifo.small_ghost);
    PyObject *main_ghost = at(policy, state->at_s3fifo.main_ghost);
    if (!is(small, state->queue_type) || !is(main, state->queue_type) || !is(small_ghost, state->ghost_type) ||
        !is(main_ghost, state->ghost_type) || !is(at(policy, state->at_s3fifo.target), &PyFloat_Type) ||
        !is(at(policy, state->at_s3fifo.capacity), &PyLong_Type)) {
        return 0;
    }
    books->policy = policy;
    books->garbage = NULL;
    books->small = (Queue *)small;
    books->main = (Queue *)main;
    books->small_ghost = (Ghost *)small_ghost;
    books->main_ghost = (Ghost *)main_ghost;
    books->target = float_at(policy, state->at_s3fifo.target);
    return 1;
}

/* Let a used entry go round, with another count of uses. Other counts than those of the hit path are left to the
   reference. */
static inline int
s3fifo_spare(const State *state, S3FIFO *books, Queue *from, Line *line, PyObject *entry, long uses)
{
    PyObject *count = PyLong_FromLong(uses);
    if (count == NULL || queue_reserve(books->main) < 0) {
        Py_XDECREF(count);
        return FAILED;
    }
    Py_XDECREF(exchange_slot(entry, state->at_entry.frequency, count));
    entry = queue_take(from, line);
    queue_push(books->main, entry);
    Py_DECREF(entry);
    return DONE;
}

/* Who is to leave, and from where; it stays for now. Used entries before it have gone round. */
static inline int
s3fifo_choose(const State *state, S3FIFO *books, PyObject **victim, Queue **queue, Line **line)
{
    Py_XDECREF(exchange_slot(books->policy, state->at_s3fifo.filling, Py_NewRef(Py_False)));
    for (;;) {
        int from_small = (double)books->small->live >= books->target || books->main->live == 0;
        *queue = from_small ? books->small : books->main;
        PyObject *entry = queue_oldest(*queue, line, &books->garbage);
        if (entry == NULL) {
            return PyErr_Occurred() ? FAILED : REFER;
        }
        long uses = small_int_at(entry, state->at_entry.frequency);
        if (uses < 0) {
            return REFER;
        }
        if (uses == 0) {
            *victim = entry;
            return DONE;
        }
        if (s3fifo_spare(state, books, *queue, *line, entry, from_small ? 0 : uses - 1) < 0) {
            return FAILED;
        }
    }
}

static inline int
s3fifo_move_target(const State *state, S3FIFO *books, double target)
{
    double capacity = PyLong_AsDouble(at(books->policy, state->at_s3fifo.capacity));
    if (capacity == -1.0 && PyErr_Occurred()) {
        return FAILED;
    }
    double least = fmax(1.0, state->least * capacity), most = fmax(1.0, state->most * capacity);
    target = fmin(fmax(target, least), most);
    PyObject *number = PyFloat_FromDouble(target);
    if (number == NULL) {
        return FAILED;
    }
    Py_XDECREF(exchange_slot(books->policy, state->at_s3fifo.target, number));
    books->target = target;
    return DONE;
}

/* See to room in the books for a newcomer, whatever becomes of it. */
static inline int
s3fifo_reserve(S3FIFO *books)
{
    return queue_reserve(books->small) < 0 || queue_reserve(books->main) < 0 ? FAILED : DONE;
}

/* A returning key moves the target: whether the ghost had it. */
static inline int
s3fifo_returns(const State *state, S3FIFO *books, Py_hash_t digest, Ghost *ghost, Ghost *other, double sign)
{
    int lately = digests_have(ghost->new, digest);
    if (!lately && !digests_have(ghost->old, digest)) {
        return REFER;
    }
    double step = fmax(1.0, (double)ghost_size(other) / (double)ghost_size(ghost));
    if (!lately) {
        step /= 2;
    }
    if (s3fifo_move_target(state, books, books->target + sign * step) < 0) {
        return FAILED;
    }
    ghost_discard(ghost, digest);
    return DONE;
}

/* There is room in the books: nothing fails but for want of the memory for a number. */
static inline int
s3fifo_insert(const State *state, S3FIFO *books, PyObject *entry, Py_hash_t digest)
{
    Ghost *small_ghost = books->small_ghost, *main_ghost = books->main_ghost;
    int to_main = 1;
    int returns = s3fifo_returns(state, books, digest, small_ghost, main_ghost, 1.0);
    if (returns == REFER) {
        returns = s3fifo_returns(state, books, digest, main_ghost, small_ghost, -1.0);
        to_main = returns == DONE && (double)books->small->live >= books->target;
    }
    if (returns < 0) {
        return FAILED;
    }
    queue_push(to_main ? books->main : books->small, entry);
    if (returns == REFER && at(books->policy, state->at_s3fifo.filling) == Py_True &&
        (double)books->small->live > books->target) {
        Line *line;
        PyObject *oldest = queue_oldest(books->small, &line, &books->garbage);
        if (oldest != NULL) {
            oldest = queue_take(books->small, line);
            queue_push(books->main, oldest);
            Py_DECREF(oldest);
        }
        else if (PyErr_Occurred()) {
            return FAILED;
        }
    }
    return DONE;
}

#endif
