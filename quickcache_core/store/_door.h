/* A method of a class in Python that is called in C: `Door` stands for it in the class, and has the function, which
is the reference. To be included once, by a module that defines `DOOR_NAME` and the three functions below. */

#ifndef QUICKCACHE_DOOR_H
#define QUICKCACHE_DOOR_H

#include "../_slots.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject *function; /* the reference */
    PyObject *dict;
    PyObject *weakrefs;
    PyTypeObject *owner; /* NULL until a class has it */
    Py_ssize_t slot;     /* offset in its instances of what the method needs */
    const char *slot_name;
    void *state;
} Door;

/* Of the module that has this type; NULL with an exception. */
static void *door_state(PyTypeObject *type);

/* What a method of that name calls, and the slot that it reads; NULL for one that isn't known. */
static vectorcallfunc door_function(const char *name, const char **slot_name);

/* What `cache.method` gives without a call, of what is in the slot; NULL for a bound method. */
static PyObject *door_bound(PyObject *slot_value);

/* What the method needs of the cache that it is called with: a borrowed reference; NULL if the reference has to do
it. */
static inline PyObject *
behind(const Door *door, PyObject *const *args, Py_ssize_t given)
{
    if (given > 0 && door->owner != NULL && PyObject_TypeCheck(args[0], door->owner)) {
        return *slot_at(args[0], door->slot);
    }
    return NULL;
}

static PyObject *
door_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    void *state = door_state(type);
    PyObject *function;
    if (state == NULL || !PyArg_ParseTuple(args, "O!", &PyFunction_Type, &function)) {
        return NULL;
    }
    const char *name = PyUnicode_AsUTF8(((PyFunctionObject *)function)->func_name), *slot_name = NULL;
    vectorcallfunc vectorcall = name == NULL ? NULL : door_function(name, &slot_name);
    if (vectorcall == NULL) {
        return name == NULL ? NULL : PyErr_Format(PyExc_ValueError, "no door for %s", name);
    }
    Door *self = (Door *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->vectorcall = vectorcall;
        self->function = Py_NewRef(function);
        self->slot_name = slot_name;
        self->state = state;
    }
    return (PyObject *)self;
}

static PyObject *
door_get(PyObject *self, PyObject *instance, PyObject *owner)
{
    if (instance == NULL || instance == Py_None) {
        return Py_NewRef(self);
    }
    PyObject *slot_value = behind((Door *)self, &instance, 1);
    PyObject *bound = slot_value == NULL ? NULL : door_bound(slot_value);
    return bound != NULL ? bound : PyMethod_New(self, instance);
}

static PyObject *
door_set_name(PyObject *object, PyObject *args)
{
    Door *self = (Door *)object;
    PyObject *owner, *name;
    if (!PyArg_ParseTuple(args, "O!O", &PyType_Type, &owner, &name)) {
        return NULL;
    }
    if (self->owner != NULL) {
        /* Another class has it as well, maybe under another name, and needn't be a cache. */
        Py_RETURN_NONE;
    }
    Py_ssize_t slot = offset_of(owner, self->slot_name);
    if (slot < 0) {
        return NULL;
    }
    self->slot = slot;
    self->owner = (PyTypeObject *)Py_NewRef(owner);
    Py_RETURN_NONE;
}

/* As functions are pickled and copied: by name. */
static PyObject *
door_reduce(PyObject *self, PyObject *unused)
{
    return PyObject_GetAttrString(self, "__qualname__");
}

static PyObject *
door_repr(PyObject *self)
{
    return PyObject_Repr(((Door *)self)->function);
}

/* `inspect` and `unittest.mock` ask whether a method is a function before they look at its signature. */
static PyObject *
door_class(PyObject *self, void *unused)
{
    return Py_NewRef((PyObject *)&PyFunction_Type);
}

static int
door_traverse(PyObject *object, visitproc visit, void *arg)
{
    Door *self = (Door *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->function);
    Py_VISIT(self->dict);
    Py_VISIT(self->owner);
    return 0;
}

static int
door_clear(PyObject *object)
{
    /* The function stays: calls need it to the end, and the class, through which it comes back here, goes. */
    Py_CLEAR(((Door *)object)->dict);
    Py_CLEAR(((Door *)object)->owner);
    return 0;
}

static void
door_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    PyObject_ClearWeakRefs(object);
    (void)door_clear(object);
    Py_XDECREF(((Door *)object)->function);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef door_methods[] = {
    {"__set_name__", door_set_name, METH_VARARGS, NULL},
    {"__reduce__", door_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef door_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Door, vectorcall), READONLY, NULL},
    {"__dictoffset__", T_PYSSIZET, offsetof(Door, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Door, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef door_attributes[] = {
    {"__class__", door_class, NULL, NULL, NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot door_slots[] = {
    {Py_tp_new, door_new},
    {Py_tp_dealloc, door_dealloc},
    {Py_tp_traverse, door_traverse},
    {Py_tp_clear, door_clear},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_repr, door_repr},
    {Py_tp_descr_get, door_get},
    {Py_tp_methods, door_methods},
    {Py_tp_members, door_members},
    {Py_tp_getset, door_attributes},
    {0, NULL},
};

static PyType_Spec door_spec = {
    .name = DOOR_NAME,
    .basicsize = sizeof(Door),
    /* CPython specialises calls of such a method only if its type can't be changed. */
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = door_slots,
};

#endif
