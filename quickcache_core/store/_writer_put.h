/* One write, in C: `Population.put`, and what surrounds it in `MemoryStore.put`.


The methods in Python are the reference. Whatever is out of the ordinary is left to them, before anything has been
changed; each such case is a `return REFER`. What is done here is done as they do it, in the same order.

No lock is taken. With the GIL no other thread runs between two lines that call no Python code, and a write here
calls none between its first look at the books and the last change: what does (the clock of a test, keys that
compare in a way of their own, the garbage collector when an entry is made) comes before, and what is dropped (the
old value may have a finaliser) goes last. A write of another thread, or of this one, that is under way has set
`WriteLock.busy`; who holds the lock without that is not in the middle of a change. Free-threaded builds leave all
writes to the reference. */

#ifndef QUICKCACHE_WRITER_PUT_H
#define QUICKCACHE_WRITER_PUT_H

#include "_writer_s3fifo.h"
#include "_writer_wheel.h"

typedef struct {
    PyObject_HEAD
    PyObject *population, *lock;
} Writer;

/* Whether the store goes by the clock of the machine, and it wasn't exchanged. */
static inline int
is_of_machine(const State *state, PyObject *now)
{
    return now == state->monotonic && now != NULL && PyCFunction_GET_FUNCTION(now) == state->monotonic_function;
}

/* What the time is, which may run Python code. */
static int
read_clock(Write *write)
{
    PyObject *now = at(write->population, write->state->at_population.now);
    if (is_of_machine(write->state, now)) {
        write->now = monotonic();
        return DONE;
    }
    if (now == NULL) {
        return REFER;
    }
    Py_INCREF(now);
    PyObject *time = PyObject_CallNoArgs(now);
    Py_DECREF(now);
    if (time == NULL) {
        return FAILED;
    }
    int known = PyFloat_CheckExact(time);
    write->now = known ? PyFloat_AS_DOUBLE(time) : 0.0;
    Py_DECREF(time);
    return known ? DONE : REFER;
}

/* What the time is and when the entry is to end. */
static int
set_time(Write *write, double ttl)
{
    const State *state = write->state;
    PyObject *deadlines = at(write->population, state->at_population.deadlines);
    if (!is(deadlines, state->deadlines_type)) {
        return REFER;
    }
    write->now = 0.0;
    write->deadline = ttl;
    if (ttl == INFINITY && at(deadlines, state->at_deadlines.next_due) == state->forever) {
        return DONE;
    }
    int done = read_clock(write);
    if (done == DONE && ttl != INFINITY) {
        write->deadline = write->now + ttl;
        if (!(write->deadline < INFINITY)) {
            return REFER;
        }
    }
    return done;
}

/* Whether nothing is out of the ordinary but, maybe, the entry and the policy. */
static inline int
is_plain(Write *write, const Writer *writer)
{
    const State *state = write->state;
    PyObject *population = write->population;
    PyObject *deadlines = at(population, state->at_population.deadlines);
    PyObject *counters = at(population, state->at_population.counters);
    PyObject *loads = at(population, state->at_population.loads);
    PyObject *postponed = at(writer->lock, state->at_lock.postponed);
    if (at(writer->lock, state->at_lock.busy) != Py_False || !is(postponed, &PyList_Type) ||
        PyList_GET_SIZE(postponed) != 0 || at(population, state->at_population.unfinished) != Py_False ||
        at(population, state->at_population.removals) != Py_None || !is(loads, &PyDict_Type) ||
        PyDict_GET_SIZE(loads) != 0 || !is(counters, state->counters) || !is(deadlines, state->deadlines_type) ||
        at(deadlines, state->at_deadlines.new_chunk) != Py_False) {
        return 0;
    }
    write->deadlines = deadlines;
    write->counts = (Counts *)((char *)counters + state->at_counters.counts);
    return 1;
}

/* Another value, and a later deadline, for a live entry; takes over `entry`. */
static int
overwrite(Write *write, PyObject *entry)
{
    const State *state = write->state;
    PyObject *former = at(entry, state->at_entry.deadline);
    int fits = is(entry, state->entry_type) && is(former, &PyFloat_Type) &&
               at(write->population, state->at_population.may_swap) == Py_True &&
               write->now < PyFloat_AS_DOUBLE(former);
    PyObject *deadline = NULL;
    if (fits && write->deadline == INFINITY) {
        fits = former == state->forever;
    }
    else if (fits && former != state->forever && PyFloat_AS_DOUBLE(former) <= write->deadline) {
        deadline = PyFloat_FromDouble(write->deadline);
        if (deadline == NULL) {
            Py_DECREF(entry);
            return FAILED;
        }
    }
    else {
        fits = 0;
    }
    if (!fits) {
        Py_DECREF(entry);
        return REFER;
    }
    PyObject *value = exchange_slot(entry, state->at_entry.value, Py_NewRef(write->value));
    if (deadline != NULL) {
        Py_DECREF(exchange_slot(entry, state->at_entry.deadline, deadline));
    }
    write->counts->sets++;
    Py_DECREF(entry);
    Py_XDECREF(value);
    return DONE;
}

/* As `Population.leave`, of one who is in the queue still. Gives the victim, and its value. */
static int
evict(Write *write, S3FIFO *books, PyObject **left, PyObject **value)
{
    const State *state = write->state;
    PyObject *victim;
    Queue *queue;
    Line *line;
    int chosen = s3fifo_choose(state, books, &victim, &queue, &line);
    if (chosen != DONE) {
        return chosen;
    }
    int how = is(victim, state->entry_type) ? departure(state, victim) : UNKNOWN;
    PyObject *key = at(victim, state->at_entry.key);
    if (how == UNKNOWN || !is(key, &PyUnicode_Type)) {
        return REFER;
    }
    if (ghost_add(queue == books->small ? books->small_ghost : books->main_ghost, PyObject_Hash(key)) < 0 ||
        PyDict_DelItem(write->entries, key) < 0 || discard(write, victim, how) < 0) {
        return FAILED;
    }
    *left = queue_take(queue, line);
    Py_XDECREF(exchange_slot(victim, state->at_entry.deadline, Py_NewRef(state->gone)));
    *value = exchange_slot(victim, state->at_entry.value, Py_NewRef(Py_None));
    write->counts->evictions++;
    return DONE;
}

/* As `Population._note_peak`. */
static inline void
note_peak(const Write *write, Py_ssize_t size)
{
    Counts *counts = write->counts;
    if (size > counts->peak_total_keys) {
        counts->peak_total_keys = size;
    }
    if (write->now < float_at(write->deadlines, write->state->at_deadlines.next_due) &&
        size > counts->peak_valid_keys) {
        counts->peak_valid_keys = size;
    }
}

/* There was no memory for the last steps: nobody has it, then. */
static void
take_back(Write *write, PyObject *entry, PyObject *list)
{
    PyObject *type, *error, *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    Py_XDECREF(exchange_slot(entry, write->state->at_entry.deadline, Py_NewRef(write->state->gone)));
    if (PyDict_DelItem(write->entries, write->key) < 0) {
        PyErr_Clear();
    }
    if (list != NULL) {
        Py_ssize_t size = PyList_GET_SIZE(list);
        (void)PyList_SetSlice(list, size - 1, size, NULL);
    }
    PyErr_Restore(type, error, traceback);
}

/* Make an entry of the spare one and put it into the table and all books. */
static int
admit(Write *write, S3FIFO *books, PyObject *chunk, PyObject *list)
{
    State *state = write->state;
    PyObject *deadline = state->forever, *entry = state->spare, *index = NULL;
    if (list != NULL) {
        index = PyLong_FromSsize_t(PyList_GET_SIZE(list));
        deadline = PyFloat_FromDouble(write->deadline);
        if (index == NULL || deadline == NULL || PyList_Append(list, entry) < 0) {
            Py_XDECREF(index);
            Py_XDECREF(deadline);
            return FAILED;
        }
        (void)exchange_slot(entry, state->at_entry.chunk, Py_NewRef(chunk));
        (void)exchange_slot(entry, state->at_entry.index, index);
    }
    else {
        Py_INCREF(deadline);
    }
    state->spare = NULL;
    (void)exchange_slot(entry, state->at_entry.key, Py_NewRef(write->key));
    (void)exchange_slot(entry, state->at_entry.value, Py_NewRef(write->value));
    (void)exchange_slot(entry, state->at_entry.deadline, deadline);
    (void)exchange_slot(entry, state->at_entry.frequency, Py_NewRef(state->zero));
    int done = PyDict_SetItem(write->entries, write->key, entry) < 0
                   ? FAILED
                   : s3fifo_insert(state, books, entry, PyObject_Hash(write->key));
    if (done < 0) {
        take_back(write, entry, list);
    }
    Py_DECREF(entry);
    write->counts->sets += done == DONE;
    return done;
}

/* Drop an entry that has left, or keep it for the next newcomer if nobody else has it. */
static void
let_go(State *state, PyObject *entry)
{
    if (Py_REFCNT(entry) > 1 || state->spare != NULL) {
        Py_DECREF(entry);
        return;
    }
    const Py_ssize_t offsets[] = {
        state->at_entry.key,   state->at_entry.value, state->at_entry.deadline, state->at_entry.frequency,
        state->at_entry.queue, state->at_entry.chunk, state->at_entry.index,
    };
    PyObject *dropped[7];
    for (int number = 0; number < 7; number++) {
        dropped[number] = exchange_slot(entry, offsets[number], NULL);
    }
    state->spare = entry;
    for (int number = 0; number < 7; number++) {
        Py_XDECREF(dropped[number]);
    }
}

/* Insert a key that isn't there, for which there is a spare entry. */
static int
insert(Write *write)
{
    const State *state = write->state;
    S3FIFO books;
    PyObject *chunk = NULL, *list = NULL;
    if (at(write->population, state->at_population.plain_keys) != Py_True ||
        !s3fifo_open(state, at(write->population, state->at_population.policy), &books)) {
        return REFER;
    }
    Py_ssize_t size = PyDict_GET_SIZE(write->entries);
    int full = size >= write->room.max_size;
    if (full && (size > write->room.max_size || write->room.culls ||
                 !(write->now < float_at(write->deadlines, state->at_deadlines.next_due)))) {
        return REFER;
    }
    if (s3fifo_reserve(&books) < 0) {
        return FAILED;
    }
    if (write->deadline != INFINITY && (list = list_for(write, &chunk)) == NULL) {
        return PyErr_Occurred() ? FAILED : REFER;
    }
    PyObject *left = NULL, *value = NULL;
    int done = DONE;
    if (full) {
        done = evict(write, &books, &left, &value);
        if (done == DONE && list != NULL && (list = list_for(write, &chunk)) == NULL) {
            /* The chunk was given up with the one who left, and the next is full. The reference finds room in the
               table, and begins another chunk. */
            done = PyErr_Occurred() ? FAILED : REFER;
        }
    }
    else if (size >= write->counts->peak_valid_keys) {
        note_peak(write, size + 1);
    }
    if (done == DONE) {
        /* Those who went round may have taken what was reserved. */
        done = s3fifo_reserve(&books) < 0 ? FAILED : admit(write, &books, chunk, list);
    }
    if (left != NULL) {
        let_go(write->state, left);
    }
    Py_XDECREF(value);
    drop_garbage(books.garbage, state->at_entry.queue);
    return done;
}

/* The entry under the key, or NULL; REFER if the table isn't what it is in stores. */
static inline int
look_up(Write *write, PyObject **entry)
{
    write->entries = at(write->population, write->state->at_population.entries);
    if (!is(write->entries, &PyDict_Type)) {
        return REFER;
    }
    *entry = Py_XNewRef(PyDict_GetItemWithError(write->entries, write->key));
    if (*entry == NULL && PyErr_Occurred()) {
        /* A key in the table compares in a way of its own, and fails: that is the reference's to tell. */
        PyErr_Clear();
        return REFER;
    }
    return DONE;
}

/* The entry under the key, or NULL and a spare one. */
static int
look_up_or_make(Write *write, PyObject **entry)
{
    State *state = write->state;
    for (;;) {
        int done = look_up(write, entry);
        if (done != DONE || *entry != NULL || state->spare != NULL) {
            return done;
        }
        /* This may run the garbage collector, and with it anything. */
        PyObject *spare = state->entry_type->tp_alloc(state->entry_type, 0);
        if (spare == NULL) {
            return FAILED;
        }
        Py_XDECREF(state->spare);
        state->spare = spare;
    }
}

/* Write, or answer that the reference has to. */
static int
run(State *state, Writer *writer, PyObject *key, PyObject *value, double ttl, Room room)
{
#ifdef Py_GIL_DISABLED
    return REFER;
#endif
    PyObject *population = writer->population;
    if (!is(population, state->population)) {
        return REFER;
    }
    Write write = {.state = state, .population = population, .key = key, .value = value, .room = room};
    Py_INCREF(population);
    PyObject *entry = NULL;
    int done = set_time(&write, ttl);
    if (done == DONE) {
        done = look_up_or_make(&write, &entry);
    }
    if (done == DONE && (writer->population != population || !is_plain(&write, writer))) {
        Py_CLEAR(entry);
        done = REFER;
    }
    if (done == DONE) {
        done = entry != NULL ? overwrite(&write, entry) : insert(&write);
    }
    Py_DECREF(population);
    return done;
}

#endif
