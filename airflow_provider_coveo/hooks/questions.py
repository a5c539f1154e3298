"""How the hook asks what :mod:`airflow_provider_coveo.coveo.questions` words; a part of the hook."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from airflow_provider_coveo.airflow_errors import non_retryable_errors
from airflow_provider_coveo.coveo.errors import CoveoError
from airflow_provider_coveo.coveo.questions import Asking, Question
from airflow_provider_coveo.hooks.responses import CoveoRequests, json_object

T = TypeVar("T")


class QuestionRequests(CoveoRequests):
    """Questions that anybody with a connection can ask."""

    @non_retryable_errors
    def conclusion(self, asking: Asking[T]) -> T:
        """
        Ask questions one after the other, and return what is concluded from the answers.

        :raises CoveoError: if Coveo refuses, or does not answer.
        """
        try:
            question = next(asking)
            while True:
                try:
                    answer = self._ask(question)
                except CoveoError as error:
                    question = asking.throw(error)
                else:
                    question = asking.send(answer)
        except StopIteration as end:
            concluded: T = end.value
            return concluded

    def _ask(self, question: Question) -> dict[str, Any]:
        answer = self._request(
            question.tried,
            question.method,
            question.path,
            platform_api=question.of_platform,
            query=question.query,
            body=None if question.body is None else json.dumps(question.body).encode(),
            answer_seconds=question.answer_seconds,
            expected=question.expected,
        )
        return json_object(answer, question.tried, *question.keys)
