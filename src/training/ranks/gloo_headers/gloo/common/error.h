// The process group's header includes this one for its standard headers only.
#pragma once

#include <stdexcept>
