/* `EntryQueue` of `queue.py` and `Ghost` of `s3fifo.py`, in C.

The classes in Python are the reference, and have the comments; these have their attributes, read-only where only
tests look. The store calls both under its write lock. With the GIL no method here can be interrupted but by what it
drops last. Free-threaded builds keep to the reference. */

#include "_queue.h"

typedef struct {
    PyTypeObject *entry_type;
    PyTypeObject *digests_type;
    Py_ssize_t deadline, queue;
} State;

static struct PyModuleDef queue_module;

static const State *
state_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &queue_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

static int
takes_nothing(PyObject *args, PyObject *keywords)
{
    if (PyTuple_GET_SIZE(args) > 0 || (keywords != NULL && PyDict_GET_SIZE(keywords) > 0)) {
        PyErr_SetString(PyExc_TypeError, "no arguments are expected");
        return 0;
    }
    return 1;
}

/* EntryQueue */

static PyObject *
queue_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    const State *state = state_of(type);
    if (state == NULL || !takes_nothing(args, keywords)) {
        return NULL;
    }
    Queue *self = (Queue *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->deadline = state->deadline;
        self->queue = state->queue;
    }
    return (PyObject *)self;
}

static PyObject *
queue_append(PyObject *object, PyObject *entry)
{
    const State *state = state_of(Py_TYPE(object));
    if (state == NULL) {
        return NULL;
    }
    if (!PyObject_TypeCheck(entry, state->entry_type)) {
        PyErr_Format(PyExc_TypeError, "an Entry is expected, not %.200s", Py_TYPE(entry)->tp_name);
        return NULL;
    }
    Queue *self = (Queue *)object;
    if (queue_reserve(self) < 0) {
        return NULL;
    }
    queue_push(self, entry);
    Py_RETURN_NONE;
}

static PyObject *
queue_popleft(PyObject *object, PyObject *unused)
{
    Queue *self = (Queue *)object;
    Line *line;
    if (queue_oldest(self, &line, NULL) == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_IndexError, "there is no live entry");
        }
        return NULL;
    }
    return queue_take(self, line);
}

static int
queue_compact(Queue *self)
{
    for (int step = 0; step < STEPS && self->back.size > 0; step++) {
        int gone = queue_is_gone(self, self->back.first->items[self->back.head]);
        if (gone < 0 || (!gone && line_reserve(self, &self->front) < 0)) {
            return -1;
        }
        PyObject *entry = line_pop(self, &self->back);
        if (gone) {
            self->dead--;
            Py_DECREF(entry);
        }
        else {
            line_push(&self->front, entry);
        }
    }
    if (self->back.size == 0) {
        Line empty = self->back;
        self->back = self->front;
        self->front = empty;
    }
    return 0;
}

static PyObject *
queue_bury(PyObject *object, PyObject *unused)
{
    Queue *self = (Queue *)object;
    self->live--;
    self->dead++;
    if (self->dead > SLACK && self->dead > self->live && queue_compact(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
line_traverse(const Line *line, visitproc visit, void *arg)
{
    Block *block = line->first;
    int place = line->head;
    for (Py_ssize_t left = line->size; left > 0; left--) {
        if (place == BLOCK_ITEMS) {
            block = block->next;
            place = 0;
        }
        Py_VISIT(block->items[place]);
        place++;
    }
    return 0;
}

static int
queue_traverse(PyObject *object, visitproc visit, void *arg)
{
    Queue *self = (Queue *)object;
    Py_VISIT(Py_TYPE(object));
    int stop = line_traverse(&self->front, visit, arg);
    return stop ? stop : line_traverse(&self->back, visit, arg);
}

static int
queue_clear(PyObject *object)
{
    Queue *self = (Queue *)object;
    /* One by one: what an entry drops may come back to this queue. */
    while (self->front.size > 0 || self->back.size > 0) {
        PyObject *entry = line_pop(self, self->front.size > 0 ? &self->front : &self->back);
        Py_DECREF(entry);
    }
    self->live = self->dead = 0;
    return 0;
}

static void
queue_dealloc(PyObject *object)
{
    Queue *self = (Queue *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)queue_clear(object);
    /* An empty line has one block at most. */
    PyMem_Free(self->front.first);
    PyMem_Free(self->back.first);
    PyMem_Free(self->spare);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyObject *
line_list(const Line *line)
{
    PyObject *list = PyList_New(line->size);
    if (list == NULL) {
        return NULL;
    }
    const Block *block = line->first;
    int place = line->head;
    for (Py_ssize_t number = 0; number < line->size; number++) {
        if (place == BLOCK_ITEMS) {
            block = block->next;
            place = 0;
        }
        PyList_SET_ITEM(list, number, Py_NewRef(block->items[place++]));
    }
    return list;
}

static PyObject *
queue_front(PyObject *self, void *unused)
{
    return line_list(&((Queue *)self)->front);
}

static PyObject *
queue_back(PyObject *self, void *unused)
{
    return line_list(&((Queue *)self)->back);
}

static PyMethodDef queue_methods[] = {
    {"append", queue_append, METH_O, NULL},
    {"popleft", queue_popleft, METH_NOARGS, "The oldest live entry. Raises `IndexError` when there is none."},
    {"bury", queue_bury, METH_NOARGS, "One of the entries in here has left the cache."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef queue_members[] = {
    {"live", T_PYSSIZET, offsetof(Queue, live), READONLY, "Entries in it that are in the cache."},
    {"_dead", T_PYSSIZET, offsetof(Queue, dead), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef queue_attributes[] = {
    {"_front", queue_front, NULL, "A list of what is there.", NULL},
    {"_back", queue_back, NULL, "A list of what is there.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_new, queue_new},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_traverse, queue_traverse},
    {Py_tp_clear, queue_clear},
    {Py_tp_methods, queue_methods},
    {Py_tp_members, queue_members},
    {Py_tp_getset, queue_attributes},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "quickcache_core.eviction_policy._queue.EntryQueue",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = queue_slots,
};

/* Sets of hashes */

static void
digests_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyMem_Free(((Digests *)self)->slots);
    type->tp_free(self);
    Py_DECREF(type);
}

static Py_ssize_t
digests_length(PyObject *self)
{
    return ((Digests *)self)->used;
}

/* The hash that an argument is, or -1 with an exception. */
static Py_hash_t
digest_of(PyObject *number)
{
    Py_hash_t digest = PyLong_AsSsize_t(number);
    if (digest == -1 && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_ValueError, "-1 is no hash");
    }
    return digest;
}

static int
digests_contains(PyObject *self, PyObject *number)
{
    Py_hash_t digest = digest_of(number);
    return digest == -1 ? -1 : digests_have((Digests *)self, digest);
}

static PyType_Slot digests_slots[] = {
    {Py_tp_dealloc, digests_dealloc},
    {Py_sq_length, digests_length},
    {Py_sq_contains, digests_contains},
    {0, NULL},
};

static PyType_Spec digests_spec = {
    .name = "quickcache_core.eviction_policy._queue.Digests",
    .basicsize = sizeof(Digests),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = digests_slots,
};

/* Ghost */

static int
ghost_set_limit(PyObject *self, PyObject *limit, void *unused)
{
    if (limit == NULL) {
        PyErr_SetString(PyExc_AttributeError, "limit");
        return -1;
    }
    /* More than there is memory for is as good as that. */
    Py_ssize_t number = PyNumber_AsSsize_t(limit, NULL);
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    ((Ghost *)self)->limit = number;
    return 0;
}

static PyObject *
ghost_get_limit(PyObject *self, void *unused)
{
    return PyLong_FromSsize_t(((Ghost *)self)->limit);
}

static PyObject *
ghost_make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"capacity", NULL};
    PyObject *given;
    const State *state = state_of(type);
    if (state == NULL || !PyArg_ParseTupleAndKeywords(args, keywords, "O", names, &given)) {
        return NULL;
    }
    Py_ssize_t capacity = PyNumber_AsSsize_t(given, NULL);
    if (capacity == -1 && PyErr_Occurred()) {
        return NULL;
    }
    Ghost *self = (Ghost *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->limit = capacity < 2 ? 1 : capacity / 2;
    self->digests_type = state->digests_type;
    self->new = (Digests *)self->digests_type->tp_alloc(self->digests_type, 0);
    self->old = (Digests *)self->digests_type->tp_alloc(self->digests_type, 0);
    if (self->new == NULL || self->old == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
ghost_dealloc(PyObject *object)
{
    Ghost *self = (Ghost *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(self->new);
    Py_XDECREF(self->old);
    type->tp_free(object);
    Py_DECREF(type);
}

static Py_ssize_t
ghost_length(PyObject *self)
{
    return ghost_size((Ghost *)self);
}

static PyObject *
ghost_add_number(PyObject *self, PyObject *number)
{
    Py_hash_t digest = digest_of(number);
    if (digest == -1 || ghost_add((Ghost *)self, digest) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
ghost_discard_number(PyObject *self, PyObject *number)
{
    Py_hash_t digest = digest_of(number);
    if (digest == -1) {
        return NULL;
    }
    ghost_discard((Ghost *)self, digest);
    Py_RETURN_NONE;
}

static PyMethodDef ghost_methods[] = {
    {"add", ghost_add_number, METH_O, NULL},
    {"discard", ghost_discard_number, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef ghost_members[] = {
    {"new", T_OBJECT_EX, offsetof(Ghost, new), READONLY, NULL},
    {"old", T_OBJECT_EX, offsetof(Ghost, old), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef ghost_attributes[] = {
    {"limit", ghost_get_limit, ghost_set_limit, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ghost_slots[] = {
    {Py_tp_new, ghost_make},
    {Py_tp_dealloc, ghost_dealloc},
    {Py_sq_length, ghost_length},
    {Py_tp_methods, ghost_methods},
    {Py_tp_members, ghost_members},
    {Py_tp_getset, ghost_attributes},
    {0, NULL},
};

static PyType_Spec ghost_spec = {
    .name = "quickcache_core.eviction_policy._queue.Ghost",
    .basicsize = sizeof(Ghost),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = ghost_slots,
};

/* The module */

static int
fill(PyObject *module)
{
#ifdef Py_GIL_DISABLED
    PyErr_SetString(PyExc_ImportError, "not in a free-threaded build");
    return -1;
#endif
    if (PyModule_AddIntConstant(module, "BUILD", QUICKCACHE_BUILD) < 0) {
        return -1;
    }
    State *state = PyModule_GetState(module);
    state->entry_type = type_of("quickcache_core.entry", "Entry");
    if (state->entry_type == NULL ||
        (state->deadline = offset_of((PyObject *)state->entry_type, "deadline")) < 0 ||
        (state->queue = offset_of((PyObject *)state->entry_type, "queue")) < 0) {
        return -1;
    }
    state->digests_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &digests_spec, NULL);
    if (state->digests_type == NULL) {
        return -1;
    }
    PyType_Spec *const specs[] = {&queue_spec, &ghost_spec};
    for (int number = 0; number < 2; number++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[number], NULL);
        int added = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
        Py_XDECREF(type);
        if (added < 0) {
            return -1;
        }
    }
    return 0;
}

static int
visit(PyObject *module, visitproc visit, void *arg)
{
    const State *state = PyModule_GetState(module);
    Py_VISIT(state->entry_type);
    Py_VISIT(state->digests_type);
    return 0;
}

/* There is no `m_clear`: see `_table.c`. */
static void
release(void *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->entry_type);
    Py_CLEAR(state->digests_type);
}

static PyModuleDef_Slot module_slots[] = MODULE_SLOTS(fill);

static struct PyModuleDef queue_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "quickcache_core.eviction_policy._queue",
    .m_doc = "`EntryQueue` and `Ghost`, in C.",
    .m_size = sizeof(State),
    .m_slots = module_slots,
    .m_traverse = visit,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__queue(void)
{
    return PyModuleDef_Init(&queue_module);
}
