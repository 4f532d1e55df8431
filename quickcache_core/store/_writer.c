/* The plain write in C, from `QuickCache.set` and `incr` down to the entry: a `Door` stands for each of these methods,
`Gate` is what one cache has for them, `Writer` belongs to a store. What a write does is in `_writer_put.h` and
`_writer_add.h`. */

#define DOOR_NAME "quickcache_core.store._writer.Door"

#include "_door.h"
#include "_writer_add.h"
#include "_writer_state.h"

typedef struct {
    PyObject_HEAD
    Writer *writer;
    double ttl; /* INFINITY for FOREVER */
    Room room;
    PyObject *kept; /* the types whose instances are stored as they are; NULL for all */
} Gate;

static struct PyModuleDef writer_module;

static State *
state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &writer_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

/* A TTL in seconds as callers give it; negative if the reference has to say what it means. */
static inline double
seconds(const State *state, PyObject *ttl)
{
    if (ttl == state->forever) {
        return INFINITY;
    }
    if (PyFloat_CheckExact(ttl)) {
        double number = PyFloat_AS_DOUBLE(ttl);
        return number > 0.0 && number < INFINITY ? number : -1.0;
    }
    if (PyLong_CheckExact(ttl)) {
        int overflow;
        long number = PyLong_AsLongAndOverflow(ttl, &overflow);
        return number > 0 && number < 1L << 30 ? (double)number : -1.0;
    }
    return -1.0;
}

static int
read_room(const State *state, PyObject *bounds, Room *room)
{
    if (!is(bounds, state->bounds_type) || !is(at(bounds, state->at_bounds.max_size), &PyLong_Type)) {
        return 0;
    }
    room->max_size = PyNumber_AsSsize_t(at(bounds, state->at_bounds.max_size), NULL);
    room->culls = at(bounds, state->at_bounds.cull_fraction) != Py_None;
    return 1;
}

/* Writer */

PyDoc_STRVAR(bind_doc, "bind(population, lock)\n\nWhat to write to.");

static PyObject *
writer_bind(PyObject *object, PyObject *const *args, Py_ssize_t given)
{
    State *state = state_of(Py_TYPE(object));
    if (state == NULL) {
        return NULL;
    }
    if (given != 2 || !Py_IS_TYPE(args[1], state->lock_type)) {
        PyErr_SetString(PyExc_TypeError, "a population and its WriteLock are expected");
        return NULL;
    }
    Writer *self = (Writer *)object;
    Py_XSETREF(self->population, Py_NewRef(args[0]));
    Py_XSETREF(self->lock, Py_NewRef(args[1]));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(put_doc, "put(key, value, ttl, bounds)\n\n"
"Insert or overwrite, as `MemoryStore.put`; False if that has to do it.");

static PyObject *
writer_put(PyObject *object, PyObject *const *args, Py_ssize_t given)
{
    State *state = state_of(Py_TYPE(object));
    if (state == NULL) {
        return NULL;
    }
    Room room;
    double ttl = given == 4 ? seconds(state, args[2]) : -1.0;
    if (ttl < 0.0 || !PyUnicode_CheckExact(args[0]) || !read_room(state, args[3], &room)) {
        Py_RETURN_FALSE;
    }
    int done = run(state, (Writer *)object, args[0], args[1], ttl, room);
    return done < 0 ? NULL : PyBool_FromLong(done == DONE);
}

static int
writer_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Writer *)object)->population);
    Py_VISIT(((Writer *)object)->lock);
    return 0;
}

static int
writer_clear(PyObject *object)
{
    Py_CLEAR(((Writer *)object)->population);
    Py_CLEAR(((Writer *)object)->lock);
    return 0;
}

static void
writer_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)writer_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef writer_methods[] = {
    {"bind", (PyCFunction)(void (*)(void))writer_bind, METH_FASTCALL, bind_doc},
    {"put", (PyCFunction)(void (*)(void))writer_put, METH_FASTCALL, put_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot writer_slots[] = {
    {Py_tp_dealloc, writer_dealloc},
    {Py_tp_traverse, writer_traverse},
    {Py_tp_clear, writer_clear},
    {Py_tp_methods, writer_methods},
    {0, NULL},
};

static PyType_Spec writer_spec = {
    .name = "quickcache_core.store._writer.Writer",
    .basicsize = sizeof(Writer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = writer_slots,
};

/* Gate */

static PyObject *
gate_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    const State *state = state_of(type);
    PyObject *writer, *ttl, *bounds, *kept;
    if (state == NULL || !PyArg_ParseTuple(args, "O!OOO", state->writer_type, &writer, &ttl, &bounds, &kept)) {
        return NULL;
    }
    Room room;
    double seconds_left = seconds(state, ttl);
    if (seconds_left < 0.0 || !read_room(state, bounds, &room) || (kept != Py_None && !PyFrozenSet_CheckExact(kept))) {
        /* No reason to fail: without a gate the reference does all. */
        Py_RETURN_NONE;
    }
    Gate *self = (Gate *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->writer = (Writer *)Py_NewRef(writer);
        self->ttl = seconds_left;
        self->room = room;
        self->kept = kept == Py_None ? NULL : Py_NewRef(kept);
    }
    return (PyObject *)self;
}

/* Whether the value is stored as it is. */
static inline int
is_kept(const Gate *gate, PyObject *value)
{
    if (gate->kept == NULL) {
        return 1;
    }
    int kept = PySet_Contains(gate->kept, (PyObject *)Py_TYPE(value));
    if (kept < 0) {
        /* A metaclass that compares in a way of its own, and fails: that is the reference's to tell. */
        PyErr_Clear();
    }
    return kept > 0;
}

static int
gate_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((Gate *)object)->writer);
    Py_VISIT(((Gate *)object)->kept);
    return 0;
}

static void
gate_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(((Gate *)object)->writer);
    Py_XDECREF(((Gate *)object)->kept);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot gate_slots[] = {
    {Py_tp_new, gate_new},
    {Py_tp_dealloc, gate_dealloc},
    {Py_tp_traverse, gate_traverse},
    {0, NULL},
};

static PyType_Spec gate_spec = {
    .name = "quickcache_core.store._writer.Gate",
    .basicsize = sizeof(Gate),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = gate_slots,
};

/* Doors */

/* The gate of a cache, for a key that is exactly a `str`; a new reference, or NULL without an exception. Kept for as
long as it is used: Python code that runs meanwhile may give the cache another one. */
static inline PyObject *
gate_behind(const Door *door, PyObject *const *args, Py_ssize_t given)
{
    PyObject *gate = behind(door, args, given);
    return is(gate, ((State *)door->state)->gate_type) && PyUnicode_CheckExact(args[1]) ? Py_NewRef(gate) : NULL;
}

static inline int
pass(State *state, const Gate *gate, PyObject *key, PyObject *value, PyObject *ttl)
{
    double length = gate->ttl;
    if (ttl != Py_None) {
        /* FOREVER is no duration that callers may give. */
        length = ttl == state->forever ? -1.0 : seconds(state, ttl);
    }
    if (length < 0.0 || !is_kept(gate, value)) {
        return REFER;
    }
    return run(state, gate->writer, key, value, length, gate->room);
}

/* `set(self, key, value, ttl_sec=None, **more)` */
static PyObject *
set_call(PyObject *object, PyObject *const *args, size_t flags, PyObject *names)
{
    const Door *door = (Door *)object;
    State *state = door->state;
    Py_ssize_t given = PyVectorcall_NARGS(flags);
    PyObject *ttl = Py_None;
    int plain = 0;
    if (names == NULL) {
        plain = given == 3 || given == 4;
        ttl = given == 4 ? args[3] : Py_None;
    }
    else if (given == 3 && PyTuple_GET_SIZE(names) == 1 && PyTuple_GET_ITEM(names, 0) == state->ttl_name) {
        plain = 1;
        ttl = args[3];
    }
    PyObject *gate = plain ? gate_behind(door, args, given) : NULL;
    if (gate != NULL) {
        int done = pass(state, (Gate *)gate, args[1], args[2], ttl);
        Py_DECREF(gate);
        if (done != REFER) {
            return done < 0 ? NULL : Py_NewRef(Py_None);
        }
    }
    return PyObject_Vectorcall(door->function, args, flags, names);
}

/* The delta of `incr(self, key, delta=1, *, initial=None, ttl_sec=None)`: a borrowed reference; NULL if the reference has
to do it. The other two are for keys that aren't there, which are its own, but are checked all the same. */
static inline PyObject *
delta_of(const State *state, PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    if (given != 2 && given != 3) {
        return NULL;
    }
    Py_ssize_t count = names == NULL ? 0 : PyTuple_GET_SIZE(names);
    for (Py_ssize_t number = 0; number < count; number++) {
        PyObject *name = PyTuple_GET_ITEM(names, number), *value = args[given + number];
        int fits = value == Py_None;
        if (name == state->ttl_name) {
            fits = fits || (value != state->forever && seconds(state, value) > 0.0);
        }
        else if (name == state->initial_name) {
            fits = fits || is_number(value);
        }
        else {
            fits = 0;
        }
        if (!fits) {
            return NULL;
        }
    }
    return given == 3 ? args[2] : state->one;
}

static PyObject *
incr_call(PyObject *object, PyObject *const *args, size_t flags, PyObject *names)
{
    const Door *door = (Door *)object;
    State *state = door->state;
    Py_ssize_t given = PyVectorcall_NARGS(flags);
    PyObject *delta = delta_of(state, args, given, names);
    PyObject *gate = delta != NULL ? gate_behind(door, args, given) : NULL;
    if (gate != NULL) {
        PyObject *sum = NULL;
        int done = run_add(state, ((Gate *)gate)->writer, args[1], delta, &sum);
        Py_DECREF(gate);
        if (done != REFER) {
            return sum;
        }
    }
    return PyObject_Vectorcall(door->function, args, flags, names);
}

static void *
door_state(PyTypeObject *type)
{
    return state_of(type);
}

static vectorcallfunc
door_function(const char *name, const char **slot_name)
{
    *slot_name = "_gate";
    return strcmp(name, "set") == 0 ? set_call : strcmp(name, "incr") == 0 ? incr_call : NULL;
}

static PyObject *
door_bound(PyObject *gate)
{
    return NULL;
}

/* The module */

/* A subclass of `Counters` whose most frequent counts are C integers. */
static int
add_counters(PyObject *module, State *state)
{
    PyTypeObject *base = type_of("quickcache_core.metrics.counters", "Counters");
    if (base == NULL) {
        return -1;
    }
    Py_ssize_t offset = state->at_counters.counts = base->tp_basicsize;
    PyMemberDef members[] = {
        {"sets", T_LONGLONG, offset + (Py_ssize_t)offsetof(Counts, sets), 0, NULL},
        {"evictions", T_LONGLONG, offset + (Py_ssize_t)offsetof(Counts, evictions), 0, NULL},
        {"peak_total_keys", T_LONGLONG, offset + (Py_ssize_t)offsetof(Counts, peak_total_keys), 0, NULL},
        {"peak_valid_keys", T_LONGLONG, offset + (Py_ssize_t)offsetof(Counts, peak_valid_keys), 0, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    PyType_Slot slots[] = {{Py_tp_members, members}, {Py_tp_doc, (void *)base->tp_doc}, {0, NULL}};
    PyType_Spec spec = {
        .name = "quickcache_core.store._writer.Counters",
        .basicsize = (int)(offset + (Py_ssize_t)sizeof(Counts)),
        .flags = Py_TPFLAGS_DEFAULT,
        .slots = slots,
    };
    state->counters = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, (PyObject *)base);
    Py_DECREF(base);
    return state->counters == NULL ? -1 : PyModule_AddType(module, state->counters);
}

static int
fill(PyObject *module)
{
    State *state = PyModule_GetState(module);
    if (check_build() < 0 || find_classes(state) < 0 || find_objects(state) < 0 || add_counters(module, state) < 0) {
        return -1;
    }
    struct { PyType_Spec *spec; PyTypeObject **type; } types[] = {
        {&writer_spec, &state->writer_type},
        {&gate_spec, &state->gate_type},
        {&door_spec, &state->door_type},
    };
    for (int number = 0; number < 3; number++) {
        PyObject *type = PyType_FromModuleAndSpec(module, types[number].spec, NULL);
        if (type == NULL) {
            return -1;
        }
        *types[number].type = (PyTypeObject *)type;
        if (PyModule_AddType(module, (PyTypeObject *)type) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
visit(PyObject *module, visitproc visit, void *arg)
{
    const State *state = PyModule_GetState(module);
    for (int number = 0; number < CLASSES; number++) {
        Py_VISIT(*(PyTypeObject **)((char *)state + classes[number].type));
    }
    Py_VISIT(state->counters);
    Py_VISIT(state->writer_type);
    Py_VISIT(state->gate_type);
    Py_VISIT(state->door_type);
    Py_VISIT(state->nowhere);
    Py_VISIT(state->monotonic);
    return 0;
}

/* There is no `m_clear`: see `_table.c`. */
static void
release(void *module)
{
    State *state = PyModule_GetState(module);
    for (int number = 0; number < CLASSES; number++) {
        Py_CLEAR(*(PyTypeObject **)((char *)state + classes[number].type));
    }
    Py_CLEAR(state->counters);
    Py_CLEAR(state->writer_type);
    Py_CLEAR(state->gate_type);
    Py_CLEAR(state->door_type);
    Py_CLEAR(state->forever);
    Py_CLEAR(state->gone);
    Py_CLEAR(state->zero);
    Py_CLEAR(state->one);
    Py_CLEAR(state->nil);
    Py_CLEAR(state->nowhere);
    Py_CLEAR(state->ttl_name);
    Py_CLEAR(state->initial_name);
    Py_CLEAR(state->monotonic);
    Py_CLEAR(state->spare);
}

static PyModuleDef_Slot module_slots[] = MODULE_SLOTS(fill);

static struct PyModuleDef writer_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "quickcache_core.store._writer",
    .m_doc = "The plain write, in C.",
    .m_size = sizeof(State),
    .m_slots = module_slots,
    .m_traverse = visit,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__writer(void)
{
    return PyModuleDef_Init(&writer_module);
}
