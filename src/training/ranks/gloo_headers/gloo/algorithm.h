// Empty: the shim uses nothing of this header.
#pragma once
