/* What the modules in C have in common: slots of Python classes, at the offsets that their own member descriptors
   name, and the clock. */

#ifndef QUICKCACHE_SLOTS_H
#define QUICKCACHE_SLOTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>
#include <time.h>

/* Of a module that `fill` fills: one for each interpreter, with or without a GIL. */
#if PY_VERSION_HEX >= 0x030D0000
#define MODULE_SLOTS(fill)                                                                               \
    {                                                                                                    \
        {Py_mod_exec, (void *)(fill)}, {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, \
            {Py_mod_gil, Py_MOD_GIL_NOT_USED}, {0, NULL},                                                \
    }
#elif PY_VERSION_HEX >= 0x030C0000
#define MODULE_SLOTS(fill)                                                                               \
    {                                                                                                    \
        {Py_mod_exec, (void *)(fill)}, {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED}, \
            {0, NULL},                                                                                   \
    }
#else
#define MODULE_SLOTS(fill) {{Py_mod_exec, (void *)(fill)}, {0, NULL}}
#endif

static inline PyObject **
slot_at(PyObject *object, Py_ssize_t offset)
{
    return (PyObject **)((char *)object + offset);
}

/* Put a value into a slot; what was there, or NULL. Takes the reference, and gives one. */
static inline PyObject *
exchange_slot(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject **slot = slot_at(object, offset);
    PyObject *old = *slot;
    *slot = value;
    return old;
}

/* What time.monotonic() returns. */
static inline double
monotonic(void)
{
#if defined(__linux__)
    /* As CPython computes it, without its checks and without a division of integers. */
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    if (time.tv_nsec == 0) {
        return (double)time.tv_sec;
    }
    return (double)((long long)time.tv_sec * 1000000000 + time.tv_nsec) / 1e9;
#elif PY_VERSION_HEX >= 0x030D0000
    PyTime_t now;
    (void)PyTime_MonotonicRaw(&now);
    return PyTime_AsSecondsDouble(now);
#else
    return _PyTime_AsSecondsDouble(_PyTime_GetMonotonicClock());
#endif
}

/* Whether `monotonic() < deadline` for certain; if not, the clock has to be asked, which costs five times as much.

The kernel's coarse clock is CLOCK_MONOTONIC as of its last tick: never ahead of it, and behind it by a tick, 1 to 10
milliseconds, or by some more while the processor that ticks is held up. A second is far more than that: a kernel
whose clock stands still for so long while its programs run has lost it. So an entry that has more than that left is
live by either clock, and one that is nearer to its end is judged by the exact one. */
static inline int
is_surely_before(double deadline)
{
#if defined(__linux__) && defined(CLOCK_MONOTONIC_COARSE)
    struct timespec time;
    /* Whole seconds, rounded up, and one more. */
    return clock_gettime(CLOCK_MONOTONIC_COARSE, &time) == 0 && (double)time.tv_sec + 2.0 <= deadline;
#else
    return 0;
#endif
}

/* What was compiled together has the same number: see `.ci/build_table.py`. */
#ifndef QUICKCACHE_BUILD
#define QUICKCACHE_BUILD 0
#endif

static inline int
not_ours(const char *what)
{
    PyErr_Format(PyExc_ImportError, "%s is not the one that this module was built for", what);
    return -1;
}

/* Where a slot of a Python class is; -1 with an exception. */
static inline Py_ssize_t
offset_of(PyObject *type, const char *name)
{
    PyObject *descriptor = PyObject_GetAttrString(type, name);
    if (descriptor == NULL) {
        return -1;
    }
    Py_ssize_t offset = -1;
    if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
        const PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        if (member->type == T_OBJECT_EX && member->offset >= (Py_ssize_t)sizeof(PyObject) &&
            member->offset + (Py_ssize_t)sizeof(PyObject *) <= ((PyTypeObject *)type)->tp_basicsize) {
            offset = member->offset;
        }
    }
    Py_DECREF(descriptor);
    return offset < 0 ? not_ours(name) : offset;
}

static inline PyObject *
attribute_of(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return NULL;
    }
    PyObject *attribute = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return attribute;
}

static inline PyTypeObject *
type_of(const char *module_name, const char *name)
{
    PyObject *type = attribute_of(module_name, name);
    if (type != NULL && !PyType_Check(type)) {
        Py_DECREF(type);
        not_ours(name);
        return NULL;
    }
    return (PyTypeObject *)type;
}

#endif
