/* One addition, in C: `Population.add_to_plain_number`, and what surrounds it in `MemoryStore.incr`. As in
`_writer_put.h`, what is out of the ordinary is left to the reference before anything has been changed. */

#ifndef QUICKCACHE_WRITER_ADD_H
#define QUICKCACHE_WRITER_ADD_H

#include "_writer_put.h"

/* What is added without the code of anybody else. */
static inline int
is_number(PyObject *object)
{
    return is(object, &PyLong_Type) || is(object, &PyFloat_Type);
}

/* Whether an entry that has this deadline is live. The clock of the machine is read only here. */
static inline int
is_live(const Write *write, PyObject *deadline, int by_machine)
{
    if (!is(deadline, &PyFloat_Type)) {
        return 0;
    }
    double end = PyFloat_AS_DOUBLE(deadline);
    if (deadline == write->state->forever) {
        return 1;
    }
    return by_machine ? is_surely_before(end) || monotonic() < end : write->now < end;
}

/* Give a live number another value. A new reference to that. */
static int
add(Write *write, PyObject *entry, PyObject *delta, int by_machine, PyObject **sum)
{
    const State *state = write->state;
    if (!is(entry, state->entry_type) || at(write->population, state->at_population.on_update) != Py_None) {
        return REFER;
    }
    PyObject *number = at(entry, state->at_entry.value);
    long uses = small_int_at(entry, state->at_entry.frequency);
    if (!is_number(number) || uses < 0 || !is_live(write, at(entry, state->at_entry.deadline), by_machine)) {
        return REFER;
    }
    PyObject *count = uses < 3 ? PyLong_FromLong(uses + 1) : NULL;
    *sum = uses < 3 && count == NULL ? NULL : PyNumber_Add(number, delta);
    if (*sum == NULL) {
        Py_XDECREF(count);
        return FAILED;
    }
    /* Numbers and counts run nobody's code when they go. */
    Py_DECREF(exchange_slot(entry, state->at_entry.value, Py_NewRef(*sum)));
    if (count != NULL) {
        /* Unlike an overwrite this is a use: the caller gets to see the value. */
        Py_DECREF(exchange_slot(entry, state->at_entry.frequency, count));
    }
    write->counts->sets++;
    return DONE;
}

/* Add, or answer that the reference has to. */
static int
run_add(State *state, Writer *writer, PyObject *key, PyObject *delta, PyObject **sum)
{
#ifdef Py_GIL_DISABLED
    return REFER;
#endif
    PyObject *population = writer->population;
    if (!is(population, state->population) || !is_number(delta)) {
        return REFER;
    }
    Write write = {.state = state, .population = population, .key = key};
    Py_INCREF(population);
    PyObject *entry = NULL;
    int by_machine = is_of_machine(state, at(population, state->at_population.now));
    int done = by_machine ? DONE : read_clock(&write);
    if (done == DONE) {
        done = look_up(&write, &entry);
    }
    if (done == DONE && (entry == NULL || writer->population != population || !is_plain(&write, writer))) {
        done = REFER;
    }
    if (done == DONE) {
        done = add(&write, entry, delta, by_machine, sum);
    }
    Py_XDECREF(entry);
    Py_DECREF(population);
    return done;
}

#endif
