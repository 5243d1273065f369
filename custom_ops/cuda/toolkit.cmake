# Finds the CUDA compiler, and what to compile for. Sets CMAKE_CUDA_COMPILER where there is one.
include(CheckLanguage)
check_language(CUDA)

if(NOT CMAKE_CUDA_COMPILER)
  if(NOT PCONV_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR
      "PCONV_CUDA=${PCONV_CUDA}, and no working CUDA compiler was found. Install NVIDIA's CUDA toolkit (12.0 or newer) "
      "and put nvcc on PATH, or name it: CUDACXX=/usr/local/cuda/bin/nvcc. Without CUDA: PCONV_CUDA=OFF.")
  endif()
  message(STATUS "No CUDA compiler: CPU kernels only")
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  # Machine code for what the compiler knows of these, and of the newest the source that drivers of later GPUs compile.
  execute_process(
    COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  string(REGEX MATCHALL "[0-9]+" known "${known}")
  foreach(arch 75 80 86 89 90 100 120)
    if(arch IN_LIST known)
      list(APPEND architectures ${arch}-real)
      set(newest ${arch})
    endif()
  endforeach()
  if(architectures)
    set(CMAKE_CUDA_ARCHITECTURES ${architectures} ${newest}-virtual)
  endif()
endif()

enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 17)
# The architectures of a file compile side by side.
if(CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA" AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 11.2)
  set(CMAKE_CUDA_FLAGS "${CMAKE_CUDA_FLAGS} --threads=0")
endif()
