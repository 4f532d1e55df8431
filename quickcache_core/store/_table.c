/* The hit path of `table.py`, in C.

Each type here is a subclass of the class of the same name in `table.py`, which is the reference, and overrides
only `get`. Whatever is out of the ordinary (a key that is no exact `str`, a table or an entry of an unknown
type, a slot that isn't set, arguments that don't fit) goes to the `get` of the reference, so errors and odd
cases are the same by construction.

Slots of the Python classes are read at the offsets that their own member descriptors name. `hits` and `misses`
are C integers here, which Python code reads and writes like the reference's.

With the GIL nothing runs between two lines that call no Python code. In a free-threaded build slots are read and
written within a critical section of their object, as the descriptors do it themselves. */

#include "../_slots.h"

#if PY_VERSION_HEX < 0x030D0000 /* which has no free-threaded builds */
/* Nor a door: CPython goes a longer way to a method there, if the object has slots and a dictionary. What is found in
   the dictionary is faster. */
#define DOOR_NAME "quickcache_core.store._table.Door"
#include "_door.h"

#define Py_BEGIN_CRITICAL_SECTION(object) {
#define Py_END_CRITICAL_SECTION() }
#endif

/* What `recency` of a policy asks of a hit; see `TABLES`. */
enum { COUNTER, ORDER, HOOK, KINDS };

static const char *const class_names[KINDS] = {"Table", "OrderedTable", "HookedTable"};

typedef struct {
    PyObject *reference[KINDS]; /* `get` of the classes in table.py */
    PyTypeObject *entry_type;
    PyTypeObject *frozen_type;
    PyObject *missing;
    PyObject *forever;
    PyObject *key_not_found;
    PyObject *monotonic;
    PyCFunction monotonic_function;
    PyObject *dict_copy;
    PyObject *numbers[4]; /* 0 to 3 */
    PyObject *move_to_end;
    PyObject *default_name;
    PyObject *frequency_name;
    /* Offsets of slots. */
    Py_ssize_t entries, now, on_stale, on_hit;
    Py_ssize_t value, deadline, frequency;
    Py_ssize_t load, data;
} State;

/* What a table has in C, behind the slots of its Python class. */
typedef struct {
    const State *state;
    long long hits;
    long long misses;
} Extra;

/* Where that is. The classes are compared with these sizes at import. */
static const Py_ssize_t extra_offsets[KINDS] = {
    sizeof(PyObject) + 5 * sizeof(PyObject *),
    sizeof(PyObject) + 5 * sizeof(PyObject *),
    sizeof(PyObject) + 6 * sizeof(PyObject *),
};

static struct PyModuleDef table_module;

static inline Extra *
extra_of(PyObject *self, int kind)
{
    return (Extra *)((char *)self + extra_offsets[kind]);
}

/* A new reference, or NULL without an exception if the slot isn't set. */
static inline PyObject *
read_slot(PyObject *object, Py_ssize_t offset)
{
    PyObject *value;
    Py_BEGIN_CRITICAL_SECTION(object);
    value = Py_XNewRef(*slot_at(object, offset));
    Py_END_CRITICAL_SECTION();
    return value;
}

static inline void
count(long long *counter)
{
#ifdef Py_GIL_DISABLED
    _Py_atomic_add_int64((int64_t *)counter, 1);
#else
    ++*counter;
#endif
}

/* Whether `now() >= deadline`; -1 with an exception. */
static inline int
is_past(const State *state, PyObject *now, PyObject *deadline)
{
    /* The function as well: libraries that turn the clock in tests exchange it within the object. */
    if (now == state->monotonic && PyCFunction_GET_FUNCTION(now) == state->monotonic_function &&
        PyFloat_CheckExact(deadline)) {
        double end = PyFloat_AS_DOUBLE(deadline);
        return !is_surely_before(end) && monotonic() >= end;
    }
    PyObject *time = PyObject_CallNoArgs(now);
    if (time == NULL) {
        return -1;
    }
    int past;
    if (PyFloat_CheckExact(time) && PyFloat_CheckExact(deadline)) {
        past = PyFloat_AS_DOUBLE(time) >= PyFloat_AS_DOUBLE(deadline);
    }
    else {
        PyObject *answer = PyObject_RichCompare(time, deadline, Py_GE);
        past = answer == NULL ? -1 : PyObject_IsTrue(answer);
        Py_XDECREF(answer);
    }
    Py_DECREF(time);
    return past;
}

/* One more use, for a number that isn't one of the four; 0, or -1 with an exception. */
static int
bump_other(const State *state, PyObject *entry)
{
    PyObject *frequency = PyObject_GetAttr(entry, state->frequency_name);
    if (frequency == NULL) {
        return -1;
    }
    int below = PyObject_RichCompareBool(frequency, state->numbers[3], Py_LT);
    PyObject *more = below > 0 ? PyNumber_Add(frequency, state->numbers[1]) : NULL;
    Py_DECREF(frequency);
    if (more == NULL) {
        return below == 0 ? 0 : -1;
    }
    int result = PyObject_SetAttr(entry, state->frequency_name, more);
    Py_DECREF(more);
    return result;
}

/* One more use, up to 3; 0, or -1 with an exception. */
static inline int
bump(const State *state, PyObject *entry)
{
    /* CPython has one object for each small number. */
    PyObject *const *numbers = state->numbers;
    int known = 1;
    Py_BEGIN_CRITICAL_SECTION(entry);
    PyObject **slot = slot_at(entry, state->frequency);
    PyObject *old = *slot;
    if (old != numbers[3]) {
        int number = old == numbers[2] ? 3 : old == numbers[1] ? 2 : old == numbers[0] ? 1 : 0;
        if (number > 0) {
            PyObject *more = Py_NewRef(numbers[number]);
#ifdef Py_GIL_DISABLED
            /* Its descriptor reads the slot without a lock. */
            _Py_atomic_store_ptr_release(slot, more);
#else
            *slot = more;
#endif
            Py_DECREF(old); /* never the last reference: the state has one */
        }
        else {
            known = 0;
        }
    }
    Py_END_CRITICAL_SECTION();
    return known ? 0 : bump_other(state, entry);
}

/* The value that a stored form stands for; takes the reference. */
static inline PyObject *
thaw(const State *state, PyObject *value)
{
    if (!Py_IS_TYPE(value, state->frozen_type)) {
        return value;
    }
    PyObject *load = read_slot(value, state->load);
    PyObject *data = read_slot(value, state->data);
    PyObject *result = NULL;
    if (load == NULL || data == NULL) {
        PyErr_SetString(PyExc_AttributeError, load == NULL ? "load" : "data");
    }
    else if (load == state->dict_copy && PyDict_CheckExact(data)) {
        result = PyDict_Copy(data);
    }
    else {
        result = PyObject_CallOneArg(load, data);
    }
    Py_XDECREF(load);
    Py_XDECREF(data);
    Py_DECREF(value);
    return result;
}

/* 1 and a new reference if the key is there, 0 if it isn't, -1 with an exception. */
static inline int
find(PyObject *entries, PyObject *key, PyObject **entry)
{
#if PY_VERSION_HEX >= 0x030D0000
    return PyDict_GetItemRef(entries, key, entry);
#else
    *entry = Py_XNewRef(PyDict_GetItemWithError(entries, key));
    return *entry != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
#endif
}

static inline int
is_entry(const State *state, PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    return type == state->entry_type ||
           (PyType_IsSubtype(type, state->entry_type) && type->tp_getattro == PyObject_GenericGetAttr &&
            type->tp_setattro == PyObject_GenericSetAttr);
}

/* The hit itself, for the eviction policy: 0, or -1 with an exception. */
static inline int
note_hit(const State *state, PyObject *self, PyObject *key, PyObject *entry, int kind)
{
    if (kind == COUNTER) {
        return bump(state, entry);
    }
    PyObject *result;
    if (kind == ORDER) {
        PyObject *entries = read_slot(self, state->entries);
        if (entries == NULL) {
            PyErr_SetString(PyExc_AttributeError, "entries");
            return -1;
        }
        result = PyObject_CallMethodOneArg(entries, state->move_to_end, key);
        Py_DECREF(entries);
        if (result == NULL && PyErr_ExceptionMatches(PyExc_KeyError)) {
            /* Another thread removed it meanwhile; this hit was first. */
            PyErr_Clear();
            return 0;
        }
    }
    else {
        PyObject *on_hit = read_slot(self, state->on_hit);
        if (on_hit == NULL) {
            PyErr_SetString(PyExc_AttributeError, "on_hit");
            return -1;
        }
        result = PyObject_CallOneArg(on_hit, entry);
        Py_DECREF(on_hit);
    }
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
refer(const State *state, int kind, PyObject *self, PyObject *key, PyObject *fallback)
{
    PyObject *arguments[] = {self, key, fallback};
    return PyObject_Vectorcall(state->reference[kind], arguments, 3, NULL);
}

/* `get` for arguments that can't be told apart at once: by the reference's signature, and with its errors. */
static PyObject *
refer_all(const State *state, int kind, PyObject *self, PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    Py_ssize_t all = given + (names == NULL ? 0 : PyTuple_GET_SIZE(names));
    PyObject **arguments = PyMem_New(PyObject *, all + 1);
    if (arguments == NULL) {
        return PyErr_NoMemory();
    }
    arguments[0] = self;
    for (Py_ssize_t number = 0; number < all; number++) {
        arguments[number + 1] = args[number];
    }
    PyObject *result = PyObject_Vectorcall(state->reference[kind], arguments, given + 1, names);
    PyMem_Free(arguments);
    return result;
}

static PyObject *
miss(const State *state, Extra *extra, PyObject *key, PyObject *fallback)
{
    count(&extra->misses);
    if (fallback != state->missing) {
        return Py_NewRef(fallback);
    }
    PyObject *error = PyObject_CallOneArg(state->key_not_found, key);
    if (error != NULL) {
        PyErr_SetObject(state->key_not_found, error);
        Py_DECREF(error);
    }
    return NULL;
}

/* `kind` is a constant wherever this is called, so that each type gets a function of its own. */
static inline PyObject *
get(PyObject *self, PyObject *const *args, Py_ssize_t given, PyObject *names, int kind)
{
    Extra *extra = extra_of(self, kind);
    const State *state = extra->state;
    PyObject *key, *fallback;
    if (given == 2 && names == NULL) {
        fallback = args[1];
    }
    else if (given == 1 && names == NULL) {
        fallback = state->missing;
    }
    else if (given == 1 && PyTuple_GET_SIZE(names) == 1 && PyTuple_GET_ITEM(names, 0) == state->default_name) {
        fallback = args[1];
    }
    else {
        return refer_all(state, kind, self, args, given, names);
    }
    key = args[0];
    if (!PyUnicode_CheckExact(key)) {
        return refer(state, kind, self, key, fallback);
    }
    PyObject *entries = read_slot(self, state->entries);
    if (entries == NULL || !(PyDict_CheckExact(entries) || PyODict_CheckExact(entries))) {
        Py_XDECREF(entries);
        return refer(state, kind, self, key, fallback);
    }
    PyObject *entry;
    int found = find(entries, key, &entry);
    Py_DECREF(entries);
    if (found == 0) {
        return miss(state, extra, key, fallback);
    }
    if (found < 0) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError)) {
            return NULL;
        }
        /* A key in the table compares in a way of its own, and fails: that is the reference's to tell. */
        PyErr_Clear();
        return refer(state, kind, self, key, fallback);
    }
    if (!is_entry(state, entry)) {
        Py_DECREF(entry);
        return refer(state, kind, self, key, fallback);
    }
    PyObject *value, *deadline;
    Py_BEGIN_CRITICAL_SECTION(entry);
    /* The value first, see `Entry`. */
    value = Py_XNewRef(*slot_at(entry, state->value));
    deadline = Py_XNewRef(*slot_at(entry, state->deadline));
    Py_END_CRITICAL_SECTION();
    if (value == NULL || deadline == NULL) {
        Py_DECREF(entry);
        Py_XDECREF(value);
        Py_XDECREF(deadline);
        return refer(state, kind, self, key, fallback);
    }
    if (deadline != state->forever) {
        PyObject *now = read_slot(self, state->now);
        int past = -1;
        if (now == NULL) {
            PyErr_SetString(PyExc_AttributeError, "_now");
        }
        else {
            past = is_past(state, now, deadline);
            Py_DECREF(now);
        }
        if (past != 0) {
            Py_DECREF(entry);
            Py_DECREF(value);
            Py_DECREF(deadline);
            PyObject *on_stale = past < 0 ? NULL : read_slot(self, state->on_stale);
            if (on_stale == NULL) {
                if (past > 0) {
                    PyErr_SetString(PyExc_AttributeError, "_on_stale");
                }
                return NULL;
            }
            PyObject *arguments[] = {key, fallback};
            PyObject *result = PyObject_Vectorcall(on_stale, arguments, 2, NULL);
            Py_DECREF(on_stale);
            return result;
        }
    }
    Py_DECREF(deadline);
    int noted = note_hit(state, self, key, entry, kind);
    Py_DECREF(entry);
    if (noted < 0) {
        Py_DECREF(value);
        return NULL;
    }
    count(&extra->hits);
    return thaw(state, value);
}

/* Without a signature for `inspect`, which accepts nothing but constants as defaults. */
PyDoc_STRVAR(get_doc, "get(key, default=MISSING)\n\n"
"The live value under `key`.\n\n"
"Without a default, a miss raises `KeyNotFound` or `KeyExpired`. A key that is no string raises\n"
"`InvalidKey`.");

/* What differs between the three types. */
#define TABLE_TYPE(name, kind)                                                                            \
    static PyObject *name##_get(PyObject *self, PyObject *const *args, Py_ssize_t given, PyObject *names) \
    {                                                                                                     \
        return get(self, args, given, names, kind);                                                       \
    }                                                                                                     \
    static PyObject *name##_new(PyTypeObject *type, PyObject *args, PyObject *keywords)                   \
    {                                                                                                     \
        return new_table(type, args, keywords, kind);                                                     \
    }                                                                                                     \
    static PyMethodDef name##_methods[] = {                                                               \
        {"get", (PyCFunction)(void (*)(void))name##_get, METH_FASTCALL | METH_KEYWORDS, get_doc},         \
        {NULL, NULL, 0, NULL},                                                                            \
    };

static PyObject *
new_table(PyTypeObject *type, PyObject *args, PyObject *keywords, int kind)
{
    PyObject *module = PyType_GetModuleByDef(type, &table_module);
    if (module == NULL) {
        return NULL;
    }
    /* As object.__new__, which would refuse the arguments that are for __init__. */
    PyObject *self = type->tp_alloc(type, 0);
    if (self != NULL) {
        extra_of(self, kind)->state = PyModule_GetState(module);
    }
    return self;
}

TABLE_TYPE(counter, COUNTER)
TABLE_TYPE(order, ORDER)
TABLE_TYPE(hook, HOOK)

static PyMethodDef *const methods[KINDS] = {counter_methods, order_methods, hook_methods};
static const newfunc news[KINDS] = {counter_new, order_new, hook_new};
static const char *const full_names[KINDS] = {
    "quickcache_core.store._table.Table",
    "quickcache_core.store._table.OrderedTable",
    "quickcache_core.store._table.HookedTable",
};

#ifdef DOOR_NAME

/* `get(self, key, default=MISSING)` of a cache. Of a table in C at once; otherwise by what the cache reads with. */
static PyObject *
cache_get(PyObject *object, PyObject *const *args, size_t flags, PyObject *names)
{
    const Door *door = (Door *)object;
    Py_ssize_t given = PyVectorcall_NARGS(flags);
    PyObject *reader = behind(door, args, given);
    if (reader == NULL) {
        return PyObject_Vectorcall(door->function, args, flags, names);
    }
    /* Kept for as long as it is used: Python code that runs meanwhile may give the cache another one. */
    Py_INCREF(reader);
    PyObject *result;
    const PyMethodDef *method = PyCFunction_CheckExact(reader) ? ((PyCFunctionObject *)reader)->m_ml : NULL;
    if (method == counter_methods) {
        result = counter_get(PyCFunction_GET_SELF(reader), args + 1, given - 1, names);
    }
    else {
        result = PyObject_Vectorcall(reader, args + 1, given - 1, names);
    }
    Py_DECREF(reader);
    return result;
}

static void *
door_state(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &table_module);
    return module == NULL ? NULL : PyModule_GetState(module);
}

static vectorcallfunc
door_function(const char *name, const char **slot_name)
{
    *slot_name = "_get";
    return strcmp(name, "get") == 0 ? cache_get : NULL;
}

/* As on an object that has what it reads with in the place of this method: who keeps it is spared this way. */
static PyObject *
door_bound(PyObject *reader)
{
    return Py_NewRef(reader);
}

static int
add_door(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &door_spec, NULL);
    int added = type == NULL ? -1 : PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return added;
}

#else

static int
add_door(PyObject *module)
{
    return 0;
}

#endif

/* Subclass a class of table.py and add the type to the module. */
static int
add_type(PyObject *module, PyObject *base, int kind)
{
    if (((PyTypeObject *)base)->tp_basicsize != extra_offsets[kind] || ((PyTypeObject *)base)->tp_itemsize != 0) {
        return not_ours(class_names[kind]);
    }
    Py_ssize_t offset = extra_offsets[kind];
    /* CPython copies these, but not the methods. */
    PyMemberDef members[] = {
        {"hits", T_LONGLONG, offset + (Py_ssize_t)offsetof(Extra, hits), 0, NULL},
        {"misses", T_LONGLONG, offset + (Py_ssize_t)offsetof(Extra, misses), 0, NULL},
        {NULL, 0, 0, 0, NULL},
    };
    /* Without functions for it, the garbage collector is served by those of the base, which know its slots;
       there is nothing else for it in a table. */
    PyType_Slot slots[] = {
        {Py_tp_new, (void *)news[kind]},
        {Py_tp_methods, methods[kind]},
        {Py_tp_members, members},
        {Py_tp_doc, (void *)((PyTypeObject *)base)->tp_doc},
        {0, NULL},
    };
    PyType_Spec spec = {
        .name = full_names[kind],
        .basicsize = (int)(offset + (Py_ssize_t)sizeof(Extra)),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
        .slots = slots,
    };
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, base);
    if (type == NULL) {
        return -1;
    }
    int added = PyModule_AddObjectRef(module, class_names[kind], type);
    Py_DECREF(type);
    return added;
}


static int
fill(PyObject *module)
{
    State *state = PyModule_GetState(module);
    if (add_door(module) < 0) {
        return -1;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        PyTypeObject *base = type_of("quickcache_core.store.table", class_names[kind]);
        if (base == NULL) {
            return -1;
        }
        PyObject *table = (PyObject *)base;
        state->reference[kind] = PyObject_GetAttrString(table, "get");
        int added = state->reference[kind] == NULL ? -1 : add_type(module, table, kind);
        if (added == 0 && kind == COUNTER) {
            /* The other two inherit these slots; at the same places, or their sizes would differ. */
            added = (state->entries = offset_of(table, "entries")) < 0 ||
                            (state->now = offset_of(table, "_now")) < 0 ||
                            (state->on_stale = offset_of(table, "_on_stale")) < 0
                        ? -1
                        : 0;
        }
        else if (added == 0 && kind == HOOK) {
            added = (state->on_hit = offset_of(table, "on_hit")) < 0 ? -1 : 0;
        }
        Py_DECREF(table);
        if (added < 0) {
            return -1;
        }
    }
    state->entry_type = type_of("quickcache_core.entry", "Entry");
    state->frozen_type = type_of("quickcache_core.serializer.isolation", "Frozen");
    if (state->entry_type == NULL || state->frozen_type == NULL) {
        return -1;
    }
    PyObject *entry = (PyObject *)state->entry_type, *frozen = (PyObject *)state->frozen_type;
    if ((state->value = offset_of(entry, "value")) < 0 || (state->deadline = offset_of(entry, "deadline")) < 0 ||
        (state->frequency = offset_of(entry, "frequency")) < 0 || (state->load = offset_of(frozen, "load")) < 0 ||
        (state->data = offset_of(frozen, "data")) < 0) {
        return -1;
    }
    for (int number = 0; number < 4; number++) {
        if ((state->numbers[number] = PyLong_FromLong(number)) == NULL) {
            return -1;
        }
    }
    if ((state->missing = attribute_of("quickcache_core.entry", "MISSING")) == NULL ||
        (state->forever = attribute_of("quickcache_core.entry", "FOREVER")) == NULL ||
        (state->key_not_found = attribute_of("quickcache_core.errors", "KeyNotFound")) == NULL ||
        (state->monotonic = attribute_of("time", "monotonic")) == NULL ||
        (state->dict_copy = PyObject_GetAttrString((PyObject *)&PyDict_Type, "copy")) == NULL ||
        (state->move_to_end = PyUnicode_InternFromString("move_to_end")) == NULL ||
        (state->default_name = PyUnicode_InternFromString("default")) == NULL ||
        (state->frequency_name = PyUnicode_InternFromString("frequency")) == NULL) {
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

static int
visit(PyObject *module, visitproc visit, void *arg)
{
    const State *state = PyModule_GetState(module);
    for (int kind = 0; kind < KINDS; kind++) {
        Py_VISIT(state->reference[kind]);
    }
    Py_VISIT(state->entry_type);
    Py_VISIT(state->frozen_type);
    Py_VISIT(state->missing);
    Py_VISIT(state->forever);
    Py_VISIT(state->key_not_found);
    Py_VISIT(state->monotonic);
    Py_VISIT(state->dict_copy);
    return 0;
}

/* There is no `m_clear`, on purpose: a table that is still in use while the interpreter ends, by a finaliser or a
   daemon thread, must find the state whole. Circles through the module are broken at its dictionary. */
static void
release(void *module)
{
    State *state = PyModule_GetState(module);
    for (int kind = 0; kind < KINDS; kind++) {
        Py_CLEAR(state->reference[kind]);
    }
    for (int number = 0; number < 4; number++) {
        Py_CLEAR(state->numbers[number]);
    }
    Py_CLEAR(state->entry_type);
    Py_CLEAR(state->frozen_type);
    Py_CLEAR(state->missing);
    Py_CLEAR(state->forever);
    Py_CLEAR(state->key_not_found);
    Py_CLEAR(state->monotonic);
    Py_CLEAR(state->dict_copy);
    Py_CLEAR(state->move_to_end);
    Py_CLEAR(state->default_name);
    Py_CLEAR(state->frequency_name);
}

static PyModuleDef_Slot module_slots[] = MODULE_SLOTS(fill);

static struct PyModuleDef table_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "quickcache_core.store._table",
    .m_doc = "The hit path of `table`, in C.",
    .m_size = sizeof(State),
    .m_slots = module_slots,
    .m_traverse = visit,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__table(void)
{
    return PyModuleDef_Init(&table_module);
}
