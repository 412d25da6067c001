# The CUDA sides (x.cu) of the ops, compiled by nvcc where cmake/TriptychCuda.cmake finds it.
# Without it the ops answer Unimplemented for Device::kCuda. Plain rules instead of CMake's CUDA
# language: that would have to be enabled by every folder that links this library.
if(NOT TARGET triptych_cudart)
  return()
endif()

# One heavy unit at a time: those of the libraries take 3 GiB each.
set_property(GLOBAL APPEND PROPERTY JOB_POOLS heavy_cuda=1)

set(TRIPTYCH_NVCC_FLAGS -std=c++20 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a
    -Xptxas=-warn-spills -Werror=all-warnings -Xcompiler=-Wall,-Wextra,-fPIC -I${CMAKE_SOURCE_DIR})

# Sources of others, fetched by cmake/fetch_cuda_sources.sh. Their headers are instantiated in our
# files, so a file that includes them has flags of its own: what they need, and no warnings.
set(CUDA_SOURCES ${CMAKE_SOURCE_DIR}/build-tools/cuda-sources)
set(LIBRARY_FLAGS -std=c++20 -O3 -lineinfo -gencode=arch=compute_90a,code=sm_90a -DNDEBUG --disable-warnings
    -Xcompiler=-w,-fPIC --expt-relaxed-constexpr --expt-extended-lambda
    -static-global-template-stub=false -I${CMAKE_SOURCE_DIR})
set(FLASHINFER_FLAGS ${LIBRARY_FLAGS})
foreach(folder cccl/libcudacxx/include cccl/cub cccl/thrust include cutlass/include
        cutlass/tools/util/include)
  list(APPEND FLASHINFER_FLAGS -isystem ${CUDA_SOURCES}/flashinfer/${folder})
endforeach()
set(FLASH_ATTN_FLAGS ${LIBRARY_FLAGS} -I${CMAKE_CURRENT_LIST_DIR}/flash_attn_names
    -isystem ${CUDA_SOURCES}/flashinfer/cutlass/include -isystem ${CUDA_SOURCES}/flash-attn/src)

# Which file includes which library. A file that is not named here is ours alone.
set(LIBRARY_OF_prefill_attention_64.cu FLASHINFER)
set(LIBRARY_OF_prefill_attention_128.cu FLASHINFER)
set(LIBRARY_OF_segment_attention.cu FLASH_ATTN)

file(GLOB KERNEL_CUDA_SOURCES CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu)
foreach(source IN LISTS KERNEL_CUDA_SOURCES)
  get_filename_component(name ${source} NAME)
  set(flags ${TRIPTYCH_NVCC_FLAGS})
  set(pool)
  if(name STREQUAL "attention.cu" AND EXISTS ${CUDA_SOURCES}/complete)
    list(APPEND flags -DTRIPTYCH_PREFILL_ATTENTION)
  endif()
  if(LIBRARY_OF_${name})
    if(NOT EXISTS ${CUDA_SOURCES}/complete)
      message(STATUS "kernels: no ${CUDA_SOURCES}, so without ${name}")
      continue()
    endif()
    set(flags ${${LIBRARY_OF_${name}}_FLAGS})
    set(pool JOB_POOL heavy_cuda)
  endif()
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  add_custom_command(OUTPUT ${object}
    COMMAND ${CCACHE} ${TRIPTYCH_NVCC} ${flags} -MD -MF ${object}.d -MT ${object}
            -c ${source} -o ${object}
    DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}" ${pool} VERBATIM)
  target_sources(triptych_kernels PRIVATE ${object})
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  # The dispatch of an op calls its CUDA side where there is one.
  string(REGEX REPLACE "\\.cu$" ".cc" dispatch ${source})
  if(EXISTS ${dispatch})
    set_source_files_properties(${dispatch} PROPERTIES COMPILE_DEFINITIONS TRIPTYCH_CUDA_SIDE)
  endif()
endforeach()
target_link_libraries(triptych_kernels PUBLIC triptych_cudart)
